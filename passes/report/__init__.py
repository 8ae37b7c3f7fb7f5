"""The contract, and what a report says."""
