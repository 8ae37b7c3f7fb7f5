"""make zoo: published architectures, each in a process of its own."""
