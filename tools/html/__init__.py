"""A result as one page for a browser."""
