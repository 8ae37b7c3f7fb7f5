"""What a user wants quantized and how, and the recipe of a backend."""
