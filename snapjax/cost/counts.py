"""What a program costs, before any hardware is named: operations, bytes moved, bytes on links.

Every number is per device, times how often its equation runs. All devices run one program; where
they take different branches, the number is the dearest branch's or the mean over the devices, as
`snapjax.cost.trace` was asked. Spikes are counted as if all of them fired, and `with_rates` says
what share does: the upper of two bounds where the sites' rates leave it open.

| kind | one count is | of |
|---|---|---|
| mac | a multiply-accumulate | matmuls and convolutions with two dense operands |
| ac | an accumulate, if the spike is there | matmuls and convolutions with one spike operand |
| spike_spike | an AND and a count, if both spikes are | matmuls and convolutions of spikes alone |
| add | an addition or subtraction | elementwise and reductions |
| multiply | a multiplication | elementwise and reductions |
| divide | a division or remainder | elementwise |
| compare | a comparison, minimum, maximum, selection | elementwise, reductions, sorting |
| transcendental | an exponential, logarithm, root, error function, ... | elementwise |
| other | a bit operation, shift, rounding, sign, cast to another width | elementwise |
| random | a word of random bits | random number generators |
| move | an element copied without arithmetic | gather, concatenate, transpose, slices, ... |

Reshapes, broadcasts and a mesh axis's bookkeeping are free and appear nowhere, but for a "move" of
no elements where one must be written to memory (`snapjax.cost.count.fusion`).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from snapjax.cost import rates
from snapjax.cost.rates import Bounds, Rate

# Kinds of matmuls and convolutions; published MAC counts are of these.
MATMUL_KINDS = ("mac", "ac", "spike_spike")
ELEMENTWISE_KINDS = ("add", "multiply", "divide", "compare", "transcendental", "other")
KINDS = (*MATMUL_KINDS, *ELEMENTWISE_KINDS, "random", "move")

SITE_SEPARATOR = " + "  # joins the names of sites whose spikes were put together


@dataclass(frozen=True)
class Op:
    """Arithmetic (or copying) of one kind by one equation of the program, on one device.

    Attributes:
      path: module path, such as "VisionTransformer/scan[12]/attention/query"; "" at the top.
      primitive: JAX's or HLO's name of the operation, such as "dot_general".
      kind: one of `KINDS`.
      count: how often, over all executions, as if every spike fired.
      dtype: of the widest operand, such as "bfloat16".
      bits: width of that dtype, 1 for bool and 4 for int4.
      sites: where the spikes of its spike operands were made: none, or one name an operand. Names
        of spikes that were put together are joined by " + ".
      bytes_read: bytes of all operands over all executions, as if nothing were fused.
      bytes_written: bytes of all results, likewise.
      stored_read: bytes read from memory over all executions, where operations are fused as
        `snapjax.cost.count.fusion` says (of a compiled program, as they are).
      stored_written: bytes written to memory, likewise.
      executions: how often its equations run; several of a module that are alike are one `Op`.
      starts: how many operations of their own, or groups of fused ones, this starts.
      firing: of each of `sites`, how often these spikes fire; none, as their sites do.
    """

    path: str
    primitive: str
    kind: str
    count: float
    dtype: str
    bits: int
    sites: tuple[str, ...] = ()
    bytes_read: float = 0.0
    bytes_written: float = 0.0
    stored_read: float = 0.0
    stored_written: float = 0.0
    executions: float = 1.0
    starts: float = 0.0
    firing: tuple[Rate, ...] = ()

    def scaled(self, factor: float) -> "Op":
        """This many times the same work."""
        return replace(
            self,
            count=self.count * factor,
            bytes_read=self.bytes_read * factor,
            bytes_written=self.bytes_written * factor,
            stored_read=self.stored_read * factor,
            stored_written=self.stored_written * factor,
            executions=self.executions * factor,
            starts=self.starts * factor,
        )


@dataclass(frozen=True)
class Transfer:
    """A collective: what each device sends over the mesh.

    Over n devices of an axis and a payload of B bytes (one device's operand) a ring sends, for each
    device: psum 2 (n-1)/n B in 2 (n-1) messages, all_gather (n-1) B in n-1, reduce_scatter and
    all_to_all (n-1)/n B in n-1. ppermute sends B in one message, from the devices that are a source
    of a pair whose destination is another device. Over several axes the phases follow each other,
    the mesh's last axis innermost, and the sum is what one ring over all devices would send; of
    ppermute and all_to_all a byte crosses every axis along which its destination differs.

    Attributes:
      path: module path, as in `Op`; it ends in "reshard" where no equation states the collective,
        but two parts of the program want an array in different layouts.
      collective: "ppermute", "psum", "pmax", "pmin", "all_gather", "reduce_scatter", "all_to_all",
        "ragged_all_to_all", "broadcast".
      axes: the mesh axes that it runs over.
      payload_bytes: bytes of one device's operand, an execution; bit widths below 8 are packed.
      sent: bytes that the busiest device sends over each of `axes`, an execution.
      executions: how often it runs.
      pairs: (source, destination) along the axis of a ppermute, those that stay on a device left
        out; None for the other collectives.
      symbol: what the payload is: "spikes" (a spike an element), "packed" (spikes in bit fields or
        as events), or the dtype's name.
      messages: messages that follow each other on each of `axes`, an execution.
      elements: elements of one device's operand, an execution.
      sites, firing: as in `Op`, of spikes.
      groups: places along the only axis that a collective runs among, each group by itself; None
        for the whole axis.
    """

    path: str
    collective: str
    axes: tuple[str, ...]
    payload_bytes: int
    sent: tuple[float, ...]
    executions: float
    pairs: tuple[tuple[int, int], ...] | None
    symbol: str
    messages: tuple[int, ...]
    elements: int = 0
    sites: tuple[str, ...] = ()
    firing: tuple[Rate, ...] = ()
    groups: tuple[tuple[int, ...], ...] | None = None

    @property
    def sent_bytes(self) -> float:
        """Bytes that the busiest device sends over all axes, an execution."""
        return sum(self.sent)

    def bytes_on(self, axis: str) -> float:
        """Bytes that the busiest device sends over one axis, in all executions."""
        return self.executions * sum(
            sent for name, sent in zip(self.axes, self.sent, strict=True) if name == axis
        )

    def crossings(self, axis: str, mesh: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
        """(source, destination) on one axis of each of `pairs` that crosses it."""
        if self.pairs is None or axis not in self.axes:
            return ()
        # The pairs count along all axes, the last one innermost.
        size, inner = mesh[axis], self.axes[self.axes.index(axis) + 1 :]
        stride = math.prod(mesh[name] for name in inner)
        places = ((a // stride % size, b // stride % size) for a, b in self.pairs)
        return tuple((a, b) for a, b in places if a != b)

    def all_bytes_on(self, axis: str, mesh: Mapping[str, int]) -> float:
        """Bytes that all devices of the mesh send over one axis, in all executions."""
        if self.collective == "broadcast":
            # Along a chain, whose last device sends to nobody, and of the axes before this one
            # only where the broadcast has arrived.
            inner = math.prod(mesh[name] for name in self.axes[self.axes.index(axis) + 1 :])
            senders = (mesh[axis] - 1) * inner * self._rows(mesh)
            return self.executions * self.payload_bytes * senders
        if self.pairs is None:
            return self.bytes_on(axis) * math.prod(mesh.values())
        return self._of_pairs(len(self.crossings(axis, mesh)), mesh)

    def all_bytes(self, mesh: Mapping[str, int]) -> float:
        """Bytes that all devices of the mesh send, in all executions; what a ppermute or an
        all_to_all moves along two axes counts once."""
        if self.collective in ("all_to_all", "ragged_all_to_all"):
            sizes = [len(self.groups[0])] if self.groups else [mesh[name] for name in self.axes]
            moved = self.payload_bytes * (1 - 1 / math.prod(sizes))
            return self.executions * moved * math.prod(mesh.values())
        if self.pairs is None:
            return sum(self.all_bytes_on(axis, mesh) for axis in dict.fromkeys(self.axes))
        return self._of_pairs(len(self.pairs), mesh)

    def _of_pairs(self, number: int, mesh: Mapping[str, int]) -> float:
        """Bytes of so many pairs of a permutation, whose sources alone send, in every row."""
        return self.executions * self.payload_bytes * number * self._rows(mesh)

    def _rows(self, mesh: Mapping[str, int]) -> int:
        """Parts of the mesh that the collective runs in, each by itself."""
        return math.prod(mesh.values()) // math.prod(mesh[name] for name in self.axes)


@dataclass(frozen=True)
class Unpriced:
    """Work that has no price here: never a silent zero.

    Attributes:
      primitive: its name.
      path: module path, as in `Op`.
      size: elements of its results, an execution.
      executions: how often it runs.
      reason: why.
    """

    primitive: str
    path: str
    size: int
    executions: float
    reason: str = "no rule for this primitive"


@dataclass(frozen=True)
class Counts:
    """The costs of one program.

    Attributes:
      devices: of the mesh, 1 without one.
      mesh: size of each mesh axis.
      ops: what each device computes.
      transfers: what crosses links.
      unpriced: what is left out of both.
      source: "jaxpr" or "hlo".
      notes: what a reader must know to trust the numbers, a sentence each.
      parameters: of the model, where known.
      rates: spike rate of each site, in [0, 1].
    """

    devices: int = 1
    mesh: Mapping[str, int] = field(default_factory=dict)
    ops: tuple[Op, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    unpriced: tuple[Unpriced, ...] = ()
    source: str = "jaxpr"
    notes: tuple[str, ...] = ()
    parameters: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of matmuls and convolutions on a device, spikes counted as dense."""
        return self.total(*MATMUL_KINDS)

    @property
    def flops(self) -> float:
        """Two for each of `macs`."""
        return 2 * self.macs

    @property
    def dense_macs(self) -> float:
        """Of these, the ones that really multiply: no operand is spikes."""
        return self.total("mac")

    @property
    def acs(self) -> float:
        """Accumulates on a device that really happen, each weighted by the rate of its spikes: the
        most that the rates allow, if a part of a site's spikes fires as often as the whole."""
        return self.weighted("ac") + self.weighted("spike_spike")

    @property
    def acs_bounds(self) -> Bounds:
        """The fewest and the most accumulates that the rates leave open, on a device, also where
        the spikes of a site do not fire equally often."""
        spiking = [(op.count, self.bounds(op)) for op in self.ops if op.kind in MATMUL_KINDS[1:]]
        return Bounds(*(sum(n * ends[i] for n, ends in spiking) for i in (0, 1)))

    @property
    def stored_bytes(self) -> float:
        """Bytes that a device reads from and writes to its memory, as operations are fused."""
        return sum(op.stored_read + op.stored_written for op in self.ops)

    @property
    def global_macs(self) -> float:
        """`macs` of all devices together."""
        return self.macs * self.devices

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site whose spikes are counted or sent, sorted."""
        marked: tuple[Op | Transfer, ...] = (*self.ops, *self.transfers)
        named = [site for entry in marked for site in entry.sites]
        return tuple(sorted({part for site in named for part in site.split(SITE_SEPARATOR)}))

    def total(self, *kinds: str) -> float:
        """Counts of these kinds (of all kinds but "move" if none is named), as if spikes fired."""
        wanted = kinds or tuple(kind for kind in KINDS if kind != "move")
        return sum(op.count for op in self.ops if op.kind in wanted)

    def weighted(self, *kinds: str) -> float:
        """`total`, with each spike operand's share that fires."""
        wanted = kinds or tuple(kind for kind in KINDS if kind != "move")
        return sum(op.count * self.activity(op) for op in self.ops if op.kind in wanted)

    def activity(self, entry: Op | Transfer) -> float:
        """The share of an operation's counts that happen, or of a transfer's spikes that are there.

        It is the most that `bounds` allow, so that no saving is invented, if a part of a site's
        spikes fires as often as the whole.
        """
        return self.bounds(entry, even=True).high

    def bounds(self, entry: Op | Transfer, even: bool = False) -> Bounds:
        """The least and the largest share that the rates leave open; see `snapjax.cost.rates`.

        Of two spike operands both must fire, and nobody says how often they do so together.

        Args:
          entry: of these counts.
          even: whether the spikes of a site are taken to fire equally often.
        """
        firing = entry.firing or tuple(_rate_of(site) for site in entry.sites)
        return rates.all_(*firing).bounds(self.rates, even)

    def rate(self, site: str) -> float:
        """Spike rate of a site; of spikes put together, the mean; 1 where none is known."""
        return _rate_of(site).bounds(self.rates).high

    def with_rates(self, rates: Mapping[str, float]) -> "Counts":
        """These counts with the spike rates of sites, beside those already known.

        Args:
          rates: site -> rate in [0, 1]; every site must occur in `sites`.

        Raises:
          ValueError: for an unknown site, or a rate out of range.
        """
        for site, rate in rates.items():
            if site not in self.sites:
                raise ValueError(
                    f"rates: there are no spikes of site {site!r}; "
                    f"the sites are {', '.join(map(repr, self.sites)) or '(none)'}"
                )
            number = not isinstance(rate, str) and getattr(rate, "shape", ()) == ()
            if not number or not 0 <= rate <= 1:
                raise ValueError(f"rates: the rate of {site!r} is {rate!r}, which is not in [0, 1]")
        known = {site: float(rate) for site, rate in rates.items()}
        return replace(self, rates={**self.rates, **known})

    def by_kind(self) -> dict[str, float]:
        """kind -> count on a device, spikes counted as dense; kinds in the order of `KINDS`."""
        return {kind: self.total(kind) for kind in KINDS if any(o.kind == kind for o in self.ops)}

    def by_path(self, *kinds: str) -> dict[str, float]:
        """module path -> count of these kinds (default: `MATMUL_KINDS`), in program order."""
        wanted = kinds or MATMUL_KINDS
        return _sums((op.path, op.count) for op in self.ops if op.kind in wanted)

    def by_axis(self) -> dict[str, float]:
        """mesh axis -> bytes that the busiest device sends over it."""
        found = {axis: 0.0 for axis in self.mesh}
        for transfer in self.transfers:
            for axis in dict.fromkeys(transfer.axes):
                found[axis] = found.get(axis, 0.0) + transfer.bytes_on(axis)
        return found

    def global_by_axis(self) -> dict[str, float]:
        """mesh axis -> bytes that all devices send over it."""
        found = {axis: 0.0 for axis in self.mesh}
        for transfer in self.transfers:
            for axis in dict.fromkeys(transfer.axes):
                found[axis] = found.get(axis, 0.0) + transfer.all_bytes_on(axis, self.mesh)
        return found

    def select(self, keep: Callable[[Any], bool]) -> "Counts":
        """Only the ops, transfers and unpriced entries for which `keep(entry)` is true."""
        return replace(
            self,
            ops=tuple(filter(keep, self.ops)),
            transfers=tuple(filter(keep, self.transfers)),
            unpriced=tuple(filter(keep, self.unpriced)),
        )

    def __add__(self, other: "Counts") -> "Counts":
        """The costs of one program after the other, on the same mesh."""
        if self.mesh and other.mesh and dict(self.mesh) != dict(other.mesh):
            raise ValueError(
                f"counts of two meshes do not add: {dict(self.mesh)} and {dict(other.mesh)}"
            )
        return Counts(
            devices=max(self.devices, other.devices),
            mesh=self.mesh or other.mesh,
            ops=self.ops + other.ops,
            transfers=self.transfers + other.transfers,
            unpriced=self.unpriced + other.unpriced,
            source=self.source if self.source == other.source else "jaxpr + hlo",
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
            parameters=self.parameters if self.parameters is not None else other.parameters,
            rates={**self.rates, **other.rates},
        )


def _rate_of(site: str) -> Rate:
    """The rate of a site, or the mean of several whose names are joined."""
    parts = site.split(SITE_SEPARATOR)
    return rates.mean([(1 / len(parts), rates.of_site(part)) for part in parts])


def _sums(items: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in items:
        found[key] = found.get(key, 0.0) + value
    return found
