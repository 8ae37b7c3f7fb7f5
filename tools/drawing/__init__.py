"""Charts, tables and rendered drawings."""
