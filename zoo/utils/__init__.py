"""Files read and written, records checked, locks, progress, notes, trees of arrays.

Imports nothing of zoo.
"""
