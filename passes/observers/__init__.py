"""Observers and fake quantizes: what records ranges."""
