"""The user's module: reading its state, calling it, and undoing the changes that calls make."""
