"""Recurrent layers of int8 weights."""
