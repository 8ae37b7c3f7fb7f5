"""Decoders: one graph for the prompt and one for the tokens behind it, on the same weights."""
