"""A model over a mesh: stages and microbatches, sharding rules, parameter layouts."""
