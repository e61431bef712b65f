"""Counting: the walk of a jaxpr, operation by operation."""
