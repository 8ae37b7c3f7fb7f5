"""Pipelines: what a pass is, how passes are composed, verified and recorded."""
