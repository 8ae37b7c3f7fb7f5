"""convert_pt2e and lowering."""
