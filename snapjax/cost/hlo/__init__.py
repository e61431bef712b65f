"""Counting again, from the text of the compiled program, and where the two differ."""
