"""The quantizers of PT2E, on quantfx's templates."""
