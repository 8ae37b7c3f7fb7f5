"""Random models of a backend's templates, and what must hold of each."""
