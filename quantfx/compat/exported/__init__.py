"""Exported models as PT2E takes and gives them."""
