"""Which decisions of passes are permitted: what a bisection counts and takes back."""
