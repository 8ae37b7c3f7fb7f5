"""The user's module: reading what it holds, calling it, and putting back what calls change."""
