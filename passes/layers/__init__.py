"""Modules that passes put into graphs, and the mode that they follow."""
