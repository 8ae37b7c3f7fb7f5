"""Embeddings: rows of integer tables."""
