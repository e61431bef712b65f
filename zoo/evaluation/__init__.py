"""Scores, tables of boundaries side by side, model cards, and what models are scored on.

May import embedding, train, pretrained and below."""
