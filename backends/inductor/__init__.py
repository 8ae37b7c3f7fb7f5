"""Compiling lowered graphs with Inductor."""
