"""Hardware profiles: TOML files in which every constant has a value, a range and a source.

    name = "my-board"
    description = "one sentence"
    topology = "line"           # of each mesh axis: "line", "ring" or "switch"
    ring_from = 4               # optional, of a ring: an axis of fewer devices is a line
    base = "ethernet-1g"        # optional: a profile whose constants hold where none is given here

    [link_bandwidth]            # every constant of `snapjax.cost.price.constants`
    value = 1.25e8
    unit = "byte/s"
    low = 1.1e8
    high = 1.25e8
    node = "-"
    source = "IEEE 802.3ab"
    status = "read"             # or "measured", "secondary", "assumed"

A file that is not of this form is an error that names the key, the value and the remedy.
"""

import difflib
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from snapjax.cost.price.constants import (
    BETTER_HIGH,
    MEANINGS,
    POSITIVE,
    STATUSES,
    TOPOLOGIES,
    UNITS,
    Constant,
)

FOLDER = Path(__file__).parents[1] / "profiles"
_HEAD = ("name", "description", "topology", "ring_from", "base")
_BOUNDS = ("low", "value", "high")
# Of 64 bits, where neither a file nor its base says: as of two lanes of 32.
_DERIVED = {
    "mac_64": ("mac_32", 2.0),
    "ac_64": ("ac_32", 2.0),
    "rate_mac_64": ("rate_mac_32", 0.5),
}


@dataclass(frozen=True)
class Profile:
    """A device and the links between devices.

    Attributes:
      name, description: for people.
      topology: of each mesh axis, one of `TOPOLOGIES`.
      ring_from: devices from which on an axis of topology "ring" has a link between its ends; a
        shorter one is a line.
      constants: all of `constants.UNITS`, by name.

    Example:
      >>> profile = load_profile("loihi-like")
      >>> profile["hop_x"], profile.constants["hop_x"].unit
      (3.0, 'pJ')
    """

    name: str
    description: str
    topology: str
    constants: Mapping[str, Constant]
    ring_from: int = 3  # two devices have one link between them

    def topology_of(self, size: int) -> str:
        """The topology of a mesh axis of so many devices."""
        return topology_of(self.topology, size, self.ring_from)

    def __getitem__(self, name: str) -> float:
        """The value of a constant, in its unit."""
        return self.constants[name].value

    def best(self) -> "Profile":
        """This profile with every constant at the end of its range that costs the least."""
        return self._at(lambda name: "high" if name in BETTER_HIGH else "low")

    def worst(self) -> "Profile":
        """This profile with every constant at the end of its range that costs the most."""
        return self._at(lambda name: "low" if name in BETTER_HIGH else "high")

    def _at(self, bound: Callable[[str], str]) -> "Profile":
        moved = {
            name: replace(constant, value=getattr(constant, bound(name)))
            for name, constant in self.constants.items()
        }
        return replace(self, constants=moved)

    def by_status(self) -> dict[str, list[str]]:
        """status -> names of the constants that have it."""
        return {
            status: [name for name, c in self.constants.items() if c.status == status]
            for status in STATUSES
        }

    def to_toml(self) -> str:
        """The text of a profile file, whole: it needs no base."""
        head: dict[str, str | float] = {
            "name": self.name,
            "description": self.description,
            "topology": self.topology,
        }
        if self.ring_from != Profile.ring_from:
            head["ring_from"] = self.ring_from
        lines = [f"{key} = {_text(value)}" for key, value in head.items()]
        for name, constant in self.constants.items():
            lines += ["", f"[{name}] # {MEANINGS[name]}"]
            lines += [f"{f.name} = {_text(getattr(constant, f.name))}" for f in fields(constant)]
        return "\n".join(lines) + "\n"


def topology_of(topology: str, size: int, ring_from: int) -> str:
    """The topology of a mesh axis of so many devices: a ring needs `ring_from` to close."""
    return "line" if topology == "ring" and size < ring_from else topology


def list_profiles() -> list[str]:
    """Names of the profiles that come with the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_profile(profile: "str | os.PathLike[str] | Profile") -> Profile:
    """A profile by the name of one that comes with the package, or from a file.

    Args:
      profile: a name of `list_profiles()`, the path of a TOML file, or a profile, which is
        returned.

    Raises:
      ValueError: no such profile, or a file with a missing, unknown or bad key.
    """
    if isinstance(profile, Profile):
        return profile
    if not isinstance(profile, str | os.PathLike):
        raise ValueError(
            f"profile={profile!r} must be a Profile, a file, or one of {', '.join(list_profiles())}"
        )
    path = FOLDER / f"{profile}.toml"
    if isinstance(profile, str) and path.is_file() and profile in list_profiles():
        return _shipped(profile)
    path = Path(profile)
    if not path.is_file():
        near = _nearest(str(profile), list_profiles())
        raise ValueError(
            f"profile={str(profile)!r} is neither a file nor a profile of the package{near}; "
            f"give a path, or one of {', '.join(list_profiles())}"
        )
    return _read(path)


@cache
def _shipped(name: str) -> Profile:
    return _read(FOLDER / f"{name}.toml")


def _read(path: Path, above: tuple[str, ...] = ()) -> Profile:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    return _parse(table, str(path), above)


def _parse(table: Mapping[str, Any], where: str, above: tuple[str, ...]) -> Profile:
    for key in table:
        if key not in _HEAD and key not in UNITS:
            raise ValueError(
                f"{where}: unknown key {key!r}{_nearest(key, (*_HEAD, *UNITS))}; remove it"
            )
    base = None
    if "base" in table:
        name = table["base"]
        if name not in list_profiles() or name in above:
            problem = "a circle of bases" if name in above else "no profile of the package"
            raise ValueError(
                f"{where}: base = {name!r} is {problem}; use one of {', '.join(list_profiles())}"
            )
        base = _read(FOLDER / f"{name}.toml", (*above, name))
    for key in ("name", "description"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise ValueError(f"{where}: {key} = {table.get(key)!r} must be a text; write one")
    topology = table.get("topology", base.topology if base else None)
    if not isinstance(topology, str) or topology not in TOPOLOGIES:
        raise ValueError(f"{where}: topology = {topology!r} must be one of {', '.join(TOPOLOGIES)}")
    ring_from = table.get("ring_from", base.ring_from if base else Profile.ring_from)
    if not isinstance(ring_from, int) or isinstance(ring_from, bool) or ring_from < 3:
        raise ValueError(f"{where}: ring_from = {ring_from!r} must be a whole number of 3 or more")
    constants = {}
    for key, unit in UNITS.items():
        if key in table:
            constants[key] = _constant(key, unit, table[key], where)
        elif base is not None:
            constants[key] = base.constants[key]
        elif key not in _DERIVED:
            raise ValueError(
                f"{where}: [{key}] is missing ({MEANINGS[key]}, in {unit}); "
                "add it, or name a profile that has it as base"
            )
    for key, (narrow, factor) in _DERIVED.items():
        if key not in constants:
            constants[key] = _scaled(constants[narrow], factor, f"{factor:g} times {narrow}")
    ordered = {key: constants[key] for key in UNITS}
    return Profile(table["name"], table["description"], topology, ordered, ring_from)


def _scaled(constant: Constant, factor: float, how: str) -> Constant:
    """A constant that a file of version 0.1.0 does not have, from one that it has."""
    bounds = {name: factor * getattr(constant, name) for name in _BOUNDS}
    source = f"{how}, as the file has none of its own"
    return replace(constant, **bounds, source=source, status="assumed")


def _constant(key: str, unit: str, entry: Any, where: str) -> Constant:
    names = [field.name for field in fields(Constant)]
    if not isinstance(entry, dict):
        raise ValueError(
            f"{where}: {key} = {entry!r} must be a table [{key}] with {', '.join(names)}"
        )
    for name in entry:
        if name not in names:
            raise ValueError(
                f"{where}: unknown key {key}.{name} = {entry[name]!r}{_nearest(name, names)}; "
                "remove it"
            )
    for name in names:
        if name not in entry:
            raise ValueError(
                f"{where}: {key}.{name} is missing; every constant has {', '.join(names)}"
            )
    for name in _BOUNDS:
        number = entry[name]
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not 0 <= number <= sys.float_info.max:
            raise ValueError(
                f"{where}: {key}.{name} = {number!r} must be a finite number >= 0 in {unit}"
            )
        if number == 0 and key in POSITIVE:
            raise ValueError(f"{where}: {key}.{name} = 0 must be greater than 0 ({unit})")
        if unit == "share" and number > 1:
            raise ValueError(f"{where}: {key}.{name} = {number} is a share: give 0 to 1")
    low, value, high = (float(entry[name]) for name in _BOUNDS)
    if not low <= value <= high:
        raise ValueError(
            f"{where}: {key} has low = {low:g}, value = {value:g}, high = {high:g}; "
            "they must ascend: low <= value <= high"
        )
    if entry["unit"] != unit:
        raise ValueError(
            f"{where}: {key}.unit = {entry['unit']!r} must be {unit!r}; convert the numbers"
        )
    for name in ("node", "source"):
        if not isinstance(entry[name], str) or not entry[name].strip():
            raise ValueError(
                f"{where}: {key}.{name} = {entry[name]!r} must be a text; say where it is from"
            )
    if not isinstance(entry["status"], str) or entry["status"] not in STATUSES:
        raise ValueError(
            f"{where}: {key}.status = {entry['status']!r} must be one of {', '.join(STATUSES)}"
        )
    return Constant(value, unit, low, high, entry["node"], entry["source"], entry["status"])


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _text(value: str | float) -> str:
    """A value as TOML writes it."""
    if isinstance(value, int | float):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
