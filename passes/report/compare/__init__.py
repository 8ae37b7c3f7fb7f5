"""Numbers that compare a q/dq graph with its float graph."""
