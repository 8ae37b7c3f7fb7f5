"""Decoders: one graph for the prompt and one for each next token, on the same weights."""
