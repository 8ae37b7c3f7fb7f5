"""Statistics of a model's tensors: record them once, and fill observers from them."""
