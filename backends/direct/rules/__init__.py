"""From the operators of a q/dq graph to the steps of a plan."""
