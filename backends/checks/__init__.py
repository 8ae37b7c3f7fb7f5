"""Checks of the machine before anything runs, and compilation of quantfx's C++."""
