"""What became of one operator, from the model to its kernel, as data that prints itself."""
