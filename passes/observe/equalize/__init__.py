"""Channels evened out between two layers, by what data says of them."""
