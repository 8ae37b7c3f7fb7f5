"""What a quantized tensor is: spec, scale and zero point, q/dq operators, notes on nodes."""
