"""What a boundary sends, and in which form: the settings, their limits, and the bytes they cost."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, Self

from snapjax.codes.code import CODES, SPIKE_CODES, Code, make_code
from snapjax.codes.spike_code import SpikeCode
from snapjax.errors import check_types, unknown_name
from snapjax.neurons.surrogate import Surrogate
from snapjax.wire import dense, spikes

WIRES = ("planes", "events")
"""Forms of the wire of a spike code: bit planes, or AER (address-event representation)."""

_OLD_FIELDS = {"kept": "kept_features"}  # of files of version 0.1.0

_TYPES = {
    "features": int,
    "code": str,
    "steps": int,
    "budget": int | None,
    "surrogate": Surrogate,
    "rank": int | None,
    "wire": str,
    "event_capacity": int,
    "gradient_wire": str,
    "kept_features": int | None,
    "debug": bool,
}


@dataclass(frozen=True, repr=False)
class Settings:
    """The settings of a `snapjax.Boundary`, which inherits them and says what each one means."""

    features: int
    code: str = "phase"
    steps: int = 4
    budget: int | None = None
    surrogate: Surrogate = field(default_factory=Surrogate)
    rank: int | None = None
    wire: str = "planes"
    event_capacity: int = 0
    gradient_wire: str = "float32"
    kept_features: int | None = None
    debug: bool = False

    def __post_init__(self) -> None:
        check_types(
            "Boundary", {name: (getattr(self, name), kind) for name, kind in _TYPES.items()}
        )
        for name, kind in _TYPES.items():  # numpy's integers are no JSON
            if kind in (int, int | None) and getattr(self, name) is not None:
                object.__setattr__(self, name, int(getattr(self, name)))
        if self.code not in CODES:
            raise unknown_name("code", self.code, CODES)
        if self.features < 1:
            raise ValueError(f"Boundary: features={self.features} must be at least 1")
        if self.rank is not None and not 1 <= self.rank <= self.features:
            raise ValueError(
                f"Boundary: rank={self.rank} must be between 1 and features={self.features}, "
                "or None for no projection"
            )
        if self.wire not in WIRES:
            raise unknown_name("wire", self.wire, WIRES)
        if self.gradient_wire not in dense.GRADIENT_FORMATS:
            raise unknown_name("gradient wire", self.gradient_wire, dense.GRADIENT_FORMATS)
        if self.wire == "events" and self.code not in SPIKE_CODES:
            raise ValueError(
                f"Boundary: wire='events' needs a spike code, got code={self.code!r}; "
                f"use one of {', '.join(SPIKE_CODES)} or wire='planes'"
            )
        if (self.wire == "events") != (self.event_capacity > 0):
            raise ValueError(
                f"Boundary: event_capacity={self.event_capacity} spikes a token must be positive "
                f"with wire='events' and 0 with wire='planes', got wire={self.wire!r}"
            )
        code = make_code(self.code, self.width, self.steps, self.budget, self.surrogate)
        if isinstance(code, SpikeCode) and self.event_capacity > code.budget:
            raise ValueError(
                f"Boundary: event_capacity={self.event_capacity} spikes a token is more than the "
                f"{code.budget} that the budget lets a token have; give at most that"
            )
        if self.kept_features is not None and not 1 <= self.kept_features <= _reach(code):
            raise ValueError(
                f"Boundary: kept_features={self.kept_features} must be between 1 and "
                f"{_reach(code)}, which is all that the width and the budget allow"
            )

    def __repr__(self) -> str:
        given = (
            f"{entry.name}={getattr(self, entry.name)!r}"
            for entry in fields(self)
            if entry.name == "features" or getattr(self, entry.name) != _default(entry)
        )
        return f"{type(self).__name__}({', '.join(given)})"

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON's own types, for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; fields that are left out have their defaults.

        Args:
          values: of `to_dict`, or of what version 0.1.0 saved, which has "kept" for
            "kept_features".

        Raises:
          ValueError: fields that are not known, naming them, or values of another type or out of
            range.

        Example:
          >>> settings = Settings(features=64, code="phase", budget=64)
          >>> Settings.from_dict(settings.to_dict()) == settings
          True
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"Boundary: {values!r} is no mapping of fields to values")
        made = {_OLD_FIELDS.get(name, name): value for name, value in values.items()}
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(made.keys() - set(known))
        if unknown:
            raise ValueError(
                f"Boundary: fields {', '.join(map(str, unknown))} are not known; the fields are "
                f"{', '.join(known)}"
            )
        if "features" not in made:
            raise ValueError("Boundary: 'features' is missing")
        if isinstance(surrogate := made.get("surrogate"), Mapping):
            made["surrogate"] = _surrogate(surrogate)
        return cls(**made)

    @property
    def width(self) -> int:
        """Features that the code sees: the projection's rank, or all."""
        return self.rank or self.features

    @property
    def codec(self) -> Code:
        """The code that this boundary names, with its sizes."""
        return make_code(self.code, self.width, self.steps, self.budget, self.surrogate)

    @property
    def spiking(self) -> bool:
        """Whether the code is one of spikes."""
        return self.code in SPIKE_CODES

    @property
    def gradient_features(self) -> int:
        """r: gradient values a token on the way back."""
        return self.kept_features or _reach(self.codec)

    @property
    def bytes_per_token(self) -> int:
        """Bytes a token of the bit-plane or dense wire. Events pool a message: `message_bytes`."""
        return self.message_bytes(1, wire="planes")

    def message_bytes(self, tokens: int, wire: str | None = None) -> int:
        """Bytes of the uint8 buffer that carries `tokens` tokens over one hop."""
        _check_tokens("message_bytes", tokens)
        if wire is not None and wire not in WIRES:
            raise unknown_name("wire", wire, WIRES)
        code = self.codec
        if not isinstance(code, SpikeCode):
            return tokens * code.bits // 8
        if (wire or self.wire) == "events" and tokens:
            return spikes.event_bytes(tokens, code.budget, tokens * self.event_capacity)
        return spikes.bit_plane_bytes(tokens, code.budget)

    def gradient_message_bytes(self, tokens: int) -> int:
        """Bytes that carry the cotangent of `tokens` tokens back over one hop."""
        _check_tokens("gradient_message_bytes", tokens)
        return dense.gradient_bytes(tokens, self.gradient_features, self.gradient_wire)


def _check_tokens(where: str, tokens: int) -> None:
    check_types(where, {"tokens": (tokens, int)})
    if tokens < 0:
        raise ValueError(f"{where}: tokens={tokens} must not be negative")


def _default(entry: Field) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _surrogate(values: Mapping[str, Any]) -> Surrogate:
    known = [entry.name for entry in fields(Surrogate)]
    unknown = sorted(map(str, values.keys() - set(known)))
    if unknown:
        raise ValueError(
            f"Boundary: surrogate has the fields {', '.join(unknown)}, which are not known; the "
            f"fields are {', '.join(known)}"
        )
    try:
        return Surrogate(**values)
    except ValueError as error:
        raise ValueError(f"Boundary: {error}") from error


def _reach(code: Code) -> int:
    """The most features that a plan within the budget can keep."""
    if isinstance(code, SpikeCode):
        return min(code.features, code.budget // code.planes_per_step)
    return code.features
