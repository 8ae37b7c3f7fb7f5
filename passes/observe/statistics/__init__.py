"""Statistics of a model's tensors: recording them once, and filling observers from them."""
