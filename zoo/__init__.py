"""The models, and everything a model needs to be trained, saved and found by name."""
