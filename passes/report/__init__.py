"""The contract, and the report."""
