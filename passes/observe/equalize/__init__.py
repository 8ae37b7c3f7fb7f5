"""Equalize the channels between two layers, by statistics of data."""
