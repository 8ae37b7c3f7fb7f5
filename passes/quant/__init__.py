"""What describes a quantized tensor: spec, scale and zero point, q/dq operators, notes on nodes."""
