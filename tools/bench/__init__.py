"""quantfx bench: engines side by side, each in its own process."""
