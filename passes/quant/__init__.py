"""What a quantized tensor is: spec, scale and zero point, q/dq operators, and the notes on nodes."""
