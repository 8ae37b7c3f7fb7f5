"""What to look for: templates of subgraphs as data, read from TOML and checked against torch.

For template sets of your own: ``load`` a file, ``lint`` it, give the set to a backend's recipe.
"""

from quantfx.patterns.errors import PatternError
from quantfx.patterns.linter import lint
from quantfx.patterns.loader import load
from quantfx.patterns.match import Match
from quantfx.patterns.matcher import Matcher
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.quant import Quant
from quantfx.patterns.schema import argument_value, resolve_op
from quantfx.patterns.template import Template

__all__ = [
    "Match",
    "Matcher",
    "PatternError",
    "PatternSet",
    "Quant",
    "Template",
    "argument_value",
    "lint",
    "load",
    "resolve_op",
]
