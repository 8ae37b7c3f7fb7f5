"""Insert observers into the graph, and run data through it."""
