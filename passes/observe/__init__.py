"""Observers into the graph, and data through it."""
