"""From a module to a graph: torch.export, free sizes, and aligning training with evaluation."""
