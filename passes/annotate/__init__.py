"""What to quantize: matches, rules and shared scales."""
