"""Networks and data that come without a download."""
