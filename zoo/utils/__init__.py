"""Atomic files, locks, progress, and trees as flat dicts. Imports nothing of this repository."""
