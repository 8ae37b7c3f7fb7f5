"""What the terms of PT2E mean: specs, quantizers, places in a graph."""
