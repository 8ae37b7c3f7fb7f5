"""The values of a template's ``quant`` table: how each edge is quantized."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"([a-z][a-z0-9_]*)(?:\(\s*([a-z0-9_,\s]*?)\s*\))?\Z")
_SAME = "same"


@dataclass(frozen=True)
class Quant:
    """One value of a ``quant`` table.

    1. ``act``: the spec of that name.
    2. ``same(x)``: the spec and qparams of role ``x``.
    3. ``bias(x, w)``: the spec ``bias``, with qparams derived from the qparams of ``x`` and ``w``.

    Attributes:
        spec: Name of the spec; empty for ``same``.
        roles: Roles whose qparams determine this edge's; empty if the tensor's own values do.
    """

    spec: str
    roles: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether the edge shares the qparams of another."""
        return not self.spec

    def __str__(self) -> str:
        name = self.spec or _SAME
        return f"{name}({', '.join(self.roles)})" if self.roles else name


def parse_quant(text: str) -> Quant | None:
    """Parse ``text``; return None if it has none of the forms of ``Quant``."""
    parsed = _FORM.match(text)
    if parsed is None:
        return None
    name, listed = parsed.groups()
    if listed is None:
        return Quant(name) if name != _SAME else None
    roles = tuple(role.strip() for role in listed.split(","))
    if not all(roles) or (name == _SAME and len(roles) != 1):
        return None
    return Quant("" if name == _SAME else name, roles)
