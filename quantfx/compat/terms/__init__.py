"""What the terms of PT2E mean: specs, quantizers, edges of a graph."""
