"""quantfx doctor: what works on this machine."""
