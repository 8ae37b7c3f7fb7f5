"""The terms of PT2E in quantfx: specs, quantizers, edges of a graph."""
