"""The inputs of a call: their leaves, and what a graph assumes about them."""
