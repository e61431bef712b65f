"""Atomic files, and trees of arrays as flat dicts. Imports nothing of this repository."""
