"""From a module to a graph: torch.export, free sizes, and training beside evaluation."""
