"""Find the operators that are the same in two graphs: by name first, then by structure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from quantfx.passes.draw.diff.operators import ComparedOperator

Operators = Mapping[str, ComparedOperator]


def pair_operators(a: Operators, b: Operators) -> dict[str, str]:
    """Return names of ``a`` -> names of ``b`` for the operators that are the same.

    1. The same name, operator, arguments and constants, and paired inputs.
    2. As 1, with any name: renaming alone is not a difference.
    3. A kernel call and the site that it computes according to lowering.
    4. The producers that paired readers read in the same slot, if the operators are the same.
    5. The same node name, module and operator.
    6. The same name, and either the same operator or paired inputs.
    7. The same operator and paired inputs, with any name.

    Where both operator and inputs differ there is no pair, unless lowering says so.
    """
    pairing = _Pairing(a, b)
    while True:
        known = len(pairing.found)
        pairing.by_name(pairing.strictly)
        pairing.by_structure(exact=True)
        pairing.by_kernel_call()
        pairing.by_readers(exact=True)
        if len(pairing.found) == known:
            pairing.by_node()
            pairing.by_name(pairing.loosely)
            pairing.by_readers(exact=False)
            pairing.by_structure(exact=False)
        if len(pairing.found) == known:
            return pairing.found


class _Pairing:
    def __init__(self, a: Operators, b: Operators) -> None:
        self.a, self.b = a, b
        self.found: dict[str, str] = {}
        self._taken: set[str] = set()
        # A site that a kernel call of the other graph computes is gone: a namesake is a different
        # operator.
        self._absorbed = {
            site for graph in (a, b) for each in graph.values() for site in each.covers
        }

    def strictly(self, one: ComparedOperator, other: ComparedOperator) -> bool:
        """Whether both are the same operator on the same inputs."""
        return _exact(one) == _exact(other) and self._reads(one) == _sources(other)

    def loosely(self, one: ComparedOperator, other: ComparedOperator) -> bool:
        """Whether both are the same operator, or have the same inputs."""
        if one.site in self._absorbed or other.site in self._absorbed:
            return False
        if one.operator == other.operator:
            return True
        reads = self._reads(one)
        return bool(reads) and set(reads.values()) == set(_sources(other).values())

    def by_name(self, same: Callable[[ComparedOperator, ComparedOperator], bool]) -> None:
        for name in self._unpaired():
            if name in self.b and same(self.a[name], self.b[name]):
                self._add(name, name)

    def by_node(self) -> None:
        """Pair operators with the same node name, except sites that a kernel call replaced."""
        by_site = {each.site: each for each in self.b.values()}
        for name in self._unpaired():
            one, other = self.a[name], by_site.get(self.a[name].site)
            if other and (one.operator, one.module) == (other.operator, other.module):
                self._add(name, other.name)

    def by_structure(self, *, exact: bool) -> None:
        waiting: defaultdict[Any, list[str]] = defaultdict(list)
        for name, each in self.b.items():
            if name not in self._taken:
                waiting[_key(each, _sources(each), exact=exact)].append(name)
        for name in self._unpaired():
            one = self.a[name]
            reads = self._reads(one)
            # Without inputs, only names and forms can be compared.
            if None in reads.values() or not (reads or exact):
                continue
            candidates = waiting[_key(one, reads, exact=exact)]
            # A namesake that waits for its own partner is taken last.
            candidates.sort(key=lambda each: each in self.a)
            free = [each for each in candidates if each not in self._taken]
            if free:
                self._add(name, free[0])

    def by_kernel_call(self) -> None:
        self._kernel_calls(self.a, self.b, turned=False)
        self._kernel_calls(self.b, self.a, turned=True)

    def by_readers(self, *, exact: bool) -> None:
        pending = list(self.found.items())
        while pending:
            one, other = pending.pop()
            mine, theirs = self.a[one].slots, self.b[other].slots
            for slot in mine.keys() & theirs.keys():
                p, q = mine[slot].source, theirs[slot].source
                if self._free(p, q) and _alike(self.a[p], self.b[q], exact=exact):
                    self._add(p, q)
                    pending.append((p, q))

    def _kernel_calls(self, graph: Operators, calls: Operators, *, turned: bool) -> None:
        by_site = {each.site: name for name, each in graph.items()}
        for name, call in calls.items():
            if len(call.stands_for) == 1 and call.stands_for[0] in by_site:
                site = by_site[call.stands_for[0]]
                one, other = (name, site) if turned else (site, name)
                if self._free(one, other):
                    self._add(one, other)

    def _free(self, one: str, other: str) -> bool:
        known = one in self.a and other in self.b
        return known and one not in self.found and other not in self._taken

    def _unpaired(self) -> Iterable[str]:
        """Yield the names of ``a`` that have no partner when their turn comes."""
        return (name for name in self.a if name not in self.found)

    def _add(self, one: str, other: str) -> None:
        if self._free(one, other):
            self.found[one] = other
            self._taken.add(other)

    def _reads(self, one: ComparedOperator) -> dict[str, str | None]:
        """Return the inputs that the partner must have; None for an input without a partner yet."""
        return {slot: self.found.get(source) for slot, source in _sources(one).items()}


def _sources(one: ComparedOperator) -> dict[str, str]:
    return {slot: each.source for slot, each in one.slots.items() if each.source}


def _key(one: ComparedOperator, reads: Mapping[str, str | None], *, exact: bool) -> Any:
    return _exact(one) if exact else one.operator, tuple(sorted(reads.items()))


def _alike(one: ComparedOperator, other: ComparedOperator, *, exact: bool) -> bool:
    return _exact(one) == _exact(other) if exact else one.operator == other.operator


def _exact(one: ComparedOperator) -> Any:
    constants = {s: (each.stored, each.sample) for s, each in one.slots.items() if each.stored}
    value = one.value if one.operator == "input" else ""
    return one.operator, one.arguments, value, tuple(sorted(constants.items()))
