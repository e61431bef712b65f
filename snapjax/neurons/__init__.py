"""Spikes with surrogate gradients, and leaky integrate-and-fire neurons over T steps."""
