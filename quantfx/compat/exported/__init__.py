"""Exported models in the form that PT2E takes and returns."""
