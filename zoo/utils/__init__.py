"""Atomic files, locks, progress, and trees of arrays as flat dicts; nothing of the repository."""
