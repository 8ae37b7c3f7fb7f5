"""Results in files, and a graph as plain data."""
