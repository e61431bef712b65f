"""Files written whole, records checked, outputs, locks, progress, notes, and trees as flat dicts.

Imports nothing of the repository but `snapjax`.
"""
