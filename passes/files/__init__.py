"""A graph as plain data, for files."""
