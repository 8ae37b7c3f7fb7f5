"""What must hold of a machine before anything runs."""
