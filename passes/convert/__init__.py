"""From observers to q/dq operators and int8 weights."""
