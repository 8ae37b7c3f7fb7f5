"""int8 regions as prepared plans of oneDNN primitives, run by one call: see README.md."""
