"""A hundred sentences of English that every Python has: of the texts of `help()`."""

import re
from pydoc_data.topics import topics


def sentences(count: int = 100) -> list[str]:
    """The first sentences of 20 to 400 characters, up to two of each topic, no two the same; they
    differ between versions of Python."""
    found: dict[str, None] = {}
    for name in sorted(topics):
        text = re.sub(r"\s+", " ", topics[name])
        usable = [s for s in re.split(r"(?<=[.!?]) ", text) if 20 <= len(s) <= 400]
        found |= dict.fromkeys(usable[:2])
    return list(found)[:count]


FIXED = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A cheetah chases its prey across a field, faster than anything else that runs on land.",
    "Spikes travel over the link; floats stay where they are.",
    "Straße, naïve café — 12,345.67 €",
    "word " * 300,  # longer than the 256 tokens that are kept
    "!",
]
