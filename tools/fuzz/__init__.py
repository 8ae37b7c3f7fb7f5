"""Random models of a backend's templates, with checks."""
