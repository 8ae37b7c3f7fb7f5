"""What a call gives: the leaves of inputs, what a graph takes for granted of them, and whether it holds."""
