"""Bidirectional encoders of text."""
