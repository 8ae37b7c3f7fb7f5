"""What rounding at each site costs at the outputs, by one backward pass or by trial."""
