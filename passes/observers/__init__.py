"""Observers and fake quantizes: modules that record ranges."""
