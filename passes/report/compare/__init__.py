"""Numbers of a q/dq graph beside the float graph that it stands for."""
