"""Counting: the walk of a jaxpr, operation by operation; `trace` is where it starts."""
