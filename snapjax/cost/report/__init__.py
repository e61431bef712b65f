"""Showing an estimate: tables, JSON and HTML."""
