"""An immutable, ordered set of templates with the vocabulary they are written in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property

from quantfx.patterns.errors import PatternError, unknown_name
from quantfx.patterns.matcher import Matcher
from quantfx.patterns.template import MODES, Mode, Op, Template

_KNOWN_GROUPS: set[str] = set()


def known_groups() -> frozenset[str]:
    """Return the groups of every set created in this process."""
    return frozenset(_KNOWN_GROUPS)


@dataclass(frozen=True)
class PatternSet:
    """Templates in order of priority.

    Attributes:
        name: What reports call the set.
        templates: Earlier templates claim nodes first.
        ops: The vocabulary.
        unsupported: ``(op, reason)`` for operators without a template that users ask about.
        groups: Every group of a template, including templates that were removed from the set.
    """

    name: str
    templates: tuple[Template, ...]
    ops: tuple[Op, ...]
    _: KW_ONLY
    unsupported: tuple[tuple[Op, str], ...] = ()
    groups: frozenset[str] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        present = {template.group for template in self.templates}
        object.__setattr__(self, "groups", self.groups | present)
        _KNOWN_GROUPS.update(self.groups)

    @cached_property
    def vocabulary(self) -> Mapping[str, Op]:
        """Op name -> Op."""
        return {op.name: op for op in self.ops}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Template names in order."""
        return tuple(template.name for template in self.templates)

    def __getitem__(self, name: str) -> Template:
        """Return the template called ``name``.

        Raises:
            PatternError: there is none; names the nearest one.
        """
        self._require(name)
        return self.templates[self.names.index(name)]

    def __or__(self, other: PatternSet) -> PatternSet:
        """Return a set of both sets' templates, this set's first.

        Raises:
            PatternError: both have a template of the same name, or define an op differently.
        """
        for name in other.names:
            if name in self.names:
                message = f"template '{name}' is in both '{self.name}' and '{other.name}'"
                raise PatternError(message, rule="taken-name", site=name)
        for op in other.ops:
            if self.vocabulary.get(op.name, op) != op:
                message = f"'{self.name}' and '{other.name}' define '{op.name}' differently"
                raise PatternError(message, rule="taken-name", site=op.name)
        ops = {op.name: op for op in (*self.ops, *other.ops)}
        return PatternSet(
            f"{self.name}+{other.name}",
            self.templates + other.templates,
            tuple(ops.values()),
            unsupported=tuple((dict(self.unsupported) | dict(other.unsupported)).items()),
            groups=self.groups | other.groups,
        )

    def without(self, *names: str) -> PatternSet:
        """Return the set without the named templates.

        Raises:
            PatternError: a name is not in the set; names the nearest one.
        """
        for name in names:
            self._require(name)
        return self._keep(lambda template: template.name not in names)

    def only(self, *names: str) -> PatternSet:
        """Return a set of only the named templates.

        Raises:
            PatternError: a name is not in the set; names the nearest one.
        """
        for name in names:
            self._require(name)
        return self._keep(lambda template: template.name in names)

    def group(self, name: str) -> PatternSet:
        """Return the templates of one group; empty if the group has none in this set."""
        return self._keep(lambda template: template.group == name)

    def of_mode(self, *modes: Mode) -> PatternSet:
        """Return the templates of the given modes."""
        return self._keep(lambda template: template.mode in modes)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of the templates."""
        present = {template.mode for template in self.templates}
        return tuple(mode for mode in MODES if mode in present)

    @property
    def spec_names(self) -> tuple[str, ...]:
        """The spec names that the templates use, sorted."""
        return tuple(sorted({spec for each in self.templates for spec in each.specs.values()}))

    def matcher(self) -> Matcher:
        """Return a matcher for the templates in order."""
        return Matcher(self.templates, self.vocabulary)

    @cached_property
    def digest(self) -> str:
        """A hash of everything that decides what matches."""
        text = "\n".join([*map(repr, self.templates), *map(repr, self.ops)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _keep(self, wanted: Callable[[Template], bool]) -> PatternSet:
        return replace(self, templates=tuple(filter(wanted, self.templates)))

    def _require(self, name: str) -> None:
        if name not in self.names:
            raise unknown_name(
                PatternError, "template", name, self.names, of=f"pattern set '{self.name}'"
            )
