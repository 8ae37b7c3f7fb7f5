"""One form for each meaning: what runs on every captured graph."""
