"""Resolve names given by the user: nodes, modules, parameters, and patterns of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from quantfx.patterns.errors import QuantfxError, did_you_mean

_GLOB = re.compile(r"[*?[]")
_KINDS = (
    "give the path of a module (layer4.2.conv3) or of a parameter (layer4.2.conv3.weight), the "
    "name of a node (conv2d_3, true_graph_0/conv2d), or a pattern of such names (layer4.*)"
)


@dataclass
class Names:
    """Every name by which a site can be asked for.

    Attributes:
        order: All sites, in the order of answers.
        other_names: Other name, of a parameter or a quantized tensor -> its site.
        modules: Path of a module -> the sites that come from it.
    """

    order: list[str] = field(default_factory=list[str])
    other_names: dict[str, str] = field(default_factory=dict[str, str])
    modules: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, site: str, modules: Iterable[str] = ()) -> None:
        """Add a site that comes from modules, and thus from the modules that contain them."""
        self.order.append(site)
        for path in dict.fromkeys(_with_outer(modules)):
            self.modules.setdefault(path, []).append(site)

    def find(self, name: str) -> list[str]:
        """Return the sites that ``name`` stands for, in the order of answers.

        Raises:
            QuantfxError: the name has no site; names the nearest.
        """
        found = set(self._globbed(name) if _GLOB.search(name) else self._exact(name))
        if not found:
            raise self._unknown(name)
        return [site for site in self.order if site in found]

    def _exact(self, name: str) -> Iterator[str]:
        if name in self.order:
            yield name
        yield from self.modules.get(name, ())
        if name in self.other_names:
            yield self.other_names[name]

    def _globbed(self, pattern: str) -> Iterator[str]:
        yield from (site for site in self.order if fnmatchcase(site, pattern))
        for path, sites in self.modules.items():
            if fnmatchcase(path, pattern):
                yield from sites
        yield from (site for name, site in self.other_names.items() if fnmatchcase(name, pattern))

    def _unknown(self, name: str) -> QuantfxError:
        known = [*self.modules, *self.order, *self.other_names]
        return QuantfxError(
            f"the model has no '{name}'{did_you_mean(name, dict.fromkeys(known), most=3)}",
            rule="unknown-name",
            site=name,
            fix=_KINDS,
        )


def _with_outer(paths: Iterable[str]) -> Iterator[str]:
    """Yield ``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``."""
    for path in paths:
        parts = path.split(".") if path else []
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
