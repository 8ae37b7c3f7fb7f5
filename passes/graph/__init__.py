"""Graphs of torch.fx: reading, editing and copying them, and the facts that hold of them."""
