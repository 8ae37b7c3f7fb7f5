"""Prepared plans: steps as data, their memory, and the C++ that runs them."""
