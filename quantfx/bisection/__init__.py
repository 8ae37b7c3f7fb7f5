"""Finding the decision that spoils a result, and the smallest graph that shows it."""
