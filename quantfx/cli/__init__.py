"""The command line: one file a command, put together in ``program.py``."""

from quantfx.cli.program import main

__all__ = ["main"]
