"""The quantizers of PT2E by name, and what they are to quantfx."""
