"""Texts to vectors, files of vectors, similarity, mining of pairs.

May import pretrained, models and data."""
