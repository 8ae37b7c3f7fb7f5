"""What a user wants quantized how, and the recipe of a backend."""
