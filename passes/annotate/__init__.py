"""What is to be quantized: matches, rules and shared scales."""
