"""make zoo: published architectures, each in its own process."""
