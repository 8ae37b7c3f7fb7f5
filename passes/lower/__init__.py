"""From q/dq operators to kernel calls."""
