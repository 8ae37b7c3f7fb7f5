"""The inputs of a call: their leaves, and what a graph takes for granted of them."""
