"""Pricing: profiles of hardware, energy, latency and traffic of counted programs."""
