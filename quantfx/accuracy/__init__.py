"""The recipe that meets a metric at least cost: what is tried, on which data, at what price."""
