"""Counts and a hardware profile -> energy and latency, each with its range."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from snapjax.cost.counts import MATMUL_KINDS, Counts, Op, Transfer
from snapjax.cost.price import energy, latency
from snapjax.cost.price import links as routes
from snapjax.cost.price.amounts import Amount, over_range, total
from snapjax.cost.price.latency import Times
from snapjax.cost.price.profile import Profile, load_profile
from snapjax.cost.price.ticks import Schedule, split
from snapjax.cost.price.traffic import Cut, Traffic, traffic


@dataclass(frozen=True)
class ModuleCost:
    """What the operations of one module path cost.

    Attributes:
      path: module path, as in `Op`.
      macs: multiply-accumulates with dense operands, on all devices.
      acs: accumulates that spikes cause, on all devices, of spikes that are there.
      others: elementwise operations, on all devices.
      memory_bytes: to and from main memory, on all devices.
      energy: part of `energy.PARTS` -> pJ on all devices; "links" are not of a module.
      seconds: on one device, pipeline bubbles left out.
    """

    path: str
    macs: float
    acs: float
    others: float
    memory_bytes: float
    energy: Mapping[str, Amount]
    seconds: Amount

    @property
    def picojoules(self) -> Amount:
        """All energy of the module, in pJ."""
        return total(self.energy.values())


@dataclass(frozen=True)
class LinkCost:
    """What one collective of the program costs.

    Attributes:
      transfer: which.
      bytes: on all links together, over all executions; a byte that crosses two links counts once.
      crossed: the same, with a byte counted on every link that it crosses.
      bytes_per_axis: mesh axis -> bytes that the busiest device sends over it, over all executions.
      energy: pJ on all links.
      seconds: on the most loaded link.
    """

    transfer: Transfer
    bytes: float
    crossed: float
    bytes_per_axis: Mapping[str, float]
    energy: Amount
    seconds: Amount


@dataclass(frozen=True)
class Estimate:
    """What a program costs on a profile.

    Attributes:
      counts: what a step needs, without what idle ticks of a pipeline add to it.
      idle: what these add: see `snapjax.cost.price.ticks`.
      profile, overlap, schedule: what was asked.
      modules: in program order.
      links: a row a collective, in program order.
      traffic: a row a transfer of spikes, in other encodings.
      times: at the profile's values; `latency` has the range.
      latency: seconds of one step.
      idle_parts: part of `energy.PARTS` -> pJ of idle ticks, which `energy` leaves out.
      notes: what a reader must know to trust the figures, a sentence each.
    """

    counts: Counts
    idle: Counts
    profile: Profile
    overlap: bool
    schedule: Schedule | None
    modules: tuple[ModuleCost, ...]
    links: tuple[LinkCost, ...]
    traffic: tuple[Traffic, ...]
    times: Times
    latency: Amount
    idle_parts: Mapping[str, Amount]
    notes: tuple[str, ...]

    @property
    def macs(self) -> float:
        """Multiply-accumulates of matmuls and convolutions on all devices, as if every operand
        were dense."""
        return _whole(self.counts.global_macs)

    @property
    def acs(self) -> float:
        """Accumulates that spikes cause on all devices."""
        return _whole(self.counts.acs * self.counts.devices)

    @property
    def energy_parts(self) -> dict[str, Amount]:
        """part -> pJ on all devices and links."""
        return _parts(self.modules, self.links)

    @property
    def energy(self) -> Amount:
        """pJ on all devices and links."""
        return total(self.energy_parts.values())

    @property
    def idle_energy(self) -> Amount:
        """pJ of idle ticks: a program that runs everything in every tick takes them too."""
        return total(self.idle_parts.values())

    @property
    def mac_ac_pj(self) -> float:
        """The energy that papers on spiking networks quote: see `energy.mac_ac`."""
        return energy.mac_ac(self.counts.dense_macs * self.counts.devices, self.acs)

    @property
    def dense_mac_pj(self) -> float:
        """The same with every spike operand dense."""
        return energy.mac_ac(self.macs, 0)


def estimate(
    counts: Counts,
    profile: "str | os.PathLike[str] | Profile",
    *,
    overlap: bool = False,
    schedule: Schedule | None = None,
    cut: Cut | None = None,
) -> Estimate:
    """The figures of `snapjax.cost.estimate`, which takes the same and adds the reports.

    Raises:
      ValueError: for a profile that does not exist or is not one, or another argument of a wrong
        type.
    """
    profile = load_profile(profile)
    for name, value, kind in (("schedule", schedule, Schedule), ("cut", cut, Cut)):
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"estimate: {name}={value!r} must be a {kind.__name__} or None")
    counts, idle = split(counts, schedule)
    price = lambda function: over_range(function, profile)
    found = [traffic(transfer, counts, profile, cut) for transfer in counts.transfers]
    rows = tuple(row for row in found if row is not None)
    modules, links = _modules(counts, profile), _links(counts, profile)
    return Estimate(
        counts=counts,
        idle=idle,
        profile=profile,
        overlap=overlap,
        schedule=schedule,
        modules=modules,
        links=links,
        traffic=rows,
        times=latency.times(counts, profile, overlap, schedule),
        latency=price(lambda p: latency.times(counts, p, overlap, schedule).total),
        idle_parts=_parts(_modules(idle, profile), _links(idle, profile)),
        notes=_notes(counts, idle, profile, rows),
    )


def _parts(modules: tuple[ModuleCost, ...], links: tuple[LinkCost, ...]) -> dict[str, Amount]:
    """part -> pJ."""
    parts = {
        part: total(module.energy.get(part, Amount()) for module in modules)
        for part in energy.PARTS
    }
    return {**parts, "links": total(link.energy for link in links)}


def _modules(counts: Counts, profile: Profile) -> tuple[ModuleCost, ...]:
    ends = (profile, profile.best(), profile.worst())
    by_path: dict[str, list[Op]] = {}
    for op in counts.ops:
        by_path.setdefault(op.path, []).append(op)

    def one(path: str, ops: list[Op]) -> ModuleCost:
        everywhere = lambda f: [counts.devices * sum(f(op, counts, p) for op in ops) for p in ends]
        count = lambda *kinds: counts.devices * sum(op.count for op in ops if op.kind in kinds)
        return ModuleCost(
            path=path,
            macs=count("mac"),
            acs=counts.devices
            * sum(op.count * counts.activity(op) for op in ops if op.kind in ("ac", "spike_spike")),
            others=counts.devices
            * sum(op.count for op in ops if op.kind not in (*MATMUL_KINDS, "move")),
            memory_bytes=everywhere(energy.memory_bytes)[0],
            energy={
                "compute": Amount(*everywhere(energy.compute_pj)),
                "memory": Amount(
                    *(
                        bytes_ * p["memory"]
                        for bytes_, p in zip(everywhere(energy.memory_bytes), ends, strict=True)
                    )
                ),
                "on-die": Amount(*everywhere(energy.on_die_pj)),
            },
            seconds=Amount(*(sum(latency.op_time(o, counts, p).busy for o in ops) for p in ends)),
        )

    return tuple(one(path, ops) for path, ops in by_path.items())


def _links(counts: Counts, profile: Profile) -> tuple[LinkCost, ...]:
    return tuple(_link(transfer, counts, profile) for transfer in counts.transfers)


def _link(transfer: Transfer, counts: Counts, profile: Profile) -> LinkCost:
    axes = dict.fromkeys(transfer.axes)
    energy_of: Callable[[Profile], float] = lambda p: energy.link_pj(transfer, counts.mesh, p)
    seconds_of: Callable[[Profile], float] = lambda p: latency.transfer_time(
        transfer, counts.mesh, p
    )
    return LinkCost(
        transfer=transfer,
        bytes=transfer.all_bytes(counts.mesh),
        crossed=transfer.executions * routes.load(transfer, counts.mesh, profile).crossed,
        bytes_per_axis={axis: transfer.bytes_on(axis) for axis in axes},
        energy=over_range(energy_of, profile),
        seconds=over_range(seconds_of, profile),
    )


def _notes(
    counts: Counts, idle: Counts, profile: Profile, rows: tuple[Traffic, ...]
) -> tuple[str, ...]:
    notes = list(counts.notes)
    unknown = [site for site in counts.sites if site not in counts.rates]
    if unknown:
        notes.append(
            f"The spike rates of {len(unknown)} of {len(counts.sites)} sites are not known and "
            f"taken as 1, the worst case: {', '.join(unknown[:4])}{', ...' * (len(unknown) > 4)}."
        )
    low, high = counts.acs_bounds
    if high - low > 1e-9 * high and not unknown:
        notes.append(
            "Which spikes coincide, and which parts of a site fire more often, is not known: the "
            f"rates leave {low * counts.devices:,.0f} to {high * counts.devices:,.0f} accumulates "
            f"open, and {counts.acs * counts.devices:,.0f} are priced."
        )
    if counts.unpriced:
        names = sorted({entry.primitive for entry in counts.unpriced})
        notes.append(
            f"{len(counts.unpriced)} operations have no price and are missing from every total: "
            f"{', '.join(names)}."
        )
    if any(row.cut is None for row in rows):
        notes.append(
            "What a message of spikes stands for was not given (cut): the dense encodings take one "
            "activation a spike."
        )
    if any(op.kind in ("ac", "spike_spike") for op in counts.ops) and not profile["skipping"]:
        notes.append(
            f"{profile.name} computes with absent spikes too: a low spike rate saves no operation."
        )
    if idle.transfers or idle.ops:
        notes.append(
            "What the program does in ticks in which a stage has no microbatch is in no total: it "
            "stands by itself, as idle ticks."
        )
    assumed = profile.by_status()["assumed"]
    notes.append(
        f"{len(assumed)} of the {len(profile.constants)} constants of {profile.name} are assumed, "
        "not read in a source."
    )
    return tuple(notes)


def _whole(number: float) -> float:
    """A count as an int where rounding alone kept it from being one."""
    near = round(number)
    return near if abs(number - near) <= 1e-9 * max(1.0, abs(number)) else number
