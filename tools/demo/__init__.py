"""quantfx demo, and a tour of few bits."""
