"""Graphs of torch.fx: reading, editing and copying them, and what holds of them."""
