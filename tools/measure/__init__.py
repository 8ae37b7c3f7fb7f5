"""The machine, signal to noise, and times side by side."""
