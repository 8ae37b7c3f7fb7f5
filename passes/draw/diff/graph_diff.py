"""The difference of two graphs as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from quantfx.passes.draw.diff.operators import ComparedOperator, ComparedSlot
from quantfx.passes.draw.diff.pair import Operators
from quantfx.passes.report.folded_table import folded_table

Change: TypeAlias = Literal["appeared", "vanished", "changed"]
What: TypeAlias = Literal[
    "operator",
    "arguments",
    "result",
    "input",
    "constant",
    "values",
    "quantization",
    "qparams",
    "group",
    "match",
    "kernel",
]
_COLOURS: dict[Change, str] = {"appeared": "green", "vanished": "red", "changed": "yellow"}


@dataclass(frozen=True)
class FieldChange:
    """One difference of an operator.

    Attributes:
        what: ``operator``, ``arguments``, ``result`` (dtype and shape), ``input`` (the producer
            that a slot reads), ``constant`` (its form), ``values`` (of a constant),
            ``quantization`` (integer type, or ``float``), ``qparams``, ``group`` (sharing group of
            a tensor), ``match`` or ``kernel``.
        slot: The tensor concerned; "" for the operator itself.
        before: Value in the first graph; "" for nothing.
        after: Value in the second graph.
    """

    what: What
    slot: str
    before: str
    after: str

    def __str__(self) -> str:
        what = f"{self.what} of {self.slot}" if self.slot else self.what
        return f"{what}: {self.before or 'none'} → {self.after or 'none'}"


@dataclass(frozen=True)
class DiffRow:
    """An operator that differs between the graphs.

    Attributes:
        change: ``appeared``, ``vanished`` or ``changed``.
        before: Its canonical name in the first graph; "" if it appeared.
        after: Its canonical name in the second graph; "" if it vanished.
        operator: The operator, in the second graph if it exists there.
        module: Path of the user's module.
        fields: What changed.
        note: The kernel call that computes it now, if any.
    """

    change: Change
    before: str
    after: str
    _: KW_ONLY
    operator: str
    module: str
    fields: tuple[FieldChange, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class GraphDiff:
    """The operators that appeared, vanished and changed between two graphs.

    Attributes:
        rows: Differing operators in the order of the second graph, then the vanished operators.
        same: Number of equal operators.
        draw: Makes the drawing: see ``to_dot``.
    """

    rows: tuple[DiffRow, ...]
    same: int
    draw: Callable[[], str] = field(repr=False, compare=False)

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.rows)

    def of(self, change: Change) -> tuple[DiffRow, ...]:
        """Return the rows of one kind of change."""
        return tuple(row for row in self.rows if row.change == change)

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as plain data that JSON can hold, without the drawing."""
        rows = [{**asdict(row), "fields": [asdict(f) for f in row.fields]} for row in self.rows]
        return {"same": self.same, "rows": rows}

    def to_dot(self) -> str:
        """Return the second graph, with the vanished operators of the first, as DOT text.

        New operators are green, vanished red, changed yellow; the rest is collapsed.
        """
        return self.draw()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table."""
        yield from self._shown()

    def __str__(self) -> str:
        console = Console(width=120, no_color=True)
        with console.capture() as captured:
            for each in self._shown():
                console.print(each)
        return captured.get()

    def _shown(self) -> Iterator[Table | Text]:
        counts = ", ".join(f"{len(self.of(kind))} {kind}" for kind in _COLOURS)
        yield Text(f"{counts}, {self.same} the same")
        if not self.rows:
            return
        table = folded_table("", "operator", "what")
        for row in self.rows:
            told = [row.operator] if row.change != "changed" else [str(f) for f in row.fields]
            renamed = row.before and row.after and row.before != row.after
            name = f"{row.before} → {row.after}" if renamed else row.after or row.before
            text = "\n".join([*told, *([row.note] if row.note else [])])
            table.add_row(Text(row.change, _COLOURS[row.change]), Text(name), Text(text))
        yield table


def diff_rows(a: Operators, b: Operators, pairs: Mapping[str, str]) -> tuple[DiffRow, ...]:
    """Return the operators that differ between two graphs.

    Args:
        a: The first graph.
        b: The second graph.
        pairs: Names of ``a`` -> names of ``b``, from ``pair_operators``.
    """
    partner = {after: before for before, after in pairs.items()}
    rows = [
        DiffRow("appeared", "", each.name, operator=each.operator, module=each.module)
        if name not in partner
        else _changed(a[partner[name]], each, pairs)
        for name, each in b.items()
    ]
    covers = {site: name for name, each in b.items() for site in each.covers}
    gone = [_vanished(each, covers) for name, each in a.items() if name not in pairs]
    return (*(row for row in rows if row is not None), *gone)


def _vanished(one: ComparedOperator, covers: Mapping[str, str]) -> DiffRow:
    note = f"computed by {covers[one.site]}" if one.site in covers else ""
    return DiffRow("vanished", one.name, "", operator=one.operator, module=one.module, note=note)


def _changed(
    one: ComparedOperator, other: ComparedOperator, pairs: Mapping[str, str]
) -> DiffRow | None:
    fields = (*_own_fields(one, other), *_slot_fields(one, other, pairs))
    if not fields:
        return None
    return DiffRow(
        "changed",
        one.name,
        other.name,
        operator=other.operator,
        module=other.module,
        fields=fields,
    )


def _own_fields(one: ComparedOperator, other: ComparedOperator) -> Iterator[FieldChange]:
    same = one.operator == other.operator
    compared: tuple[tuple[What, str, str], ...] = (
        ("operator", one.operator, other.operator),
        # Arguments of different operators cannot be compared.
        ("arguments", one.arguments if same else "", other.arguments if same else ""),
        # An unpickled graph does not know its values.
        ("result", one.value and other.value and one.value, one.value and other.value),
        ("match", one.match, other.match),
        ("kernel", one.kernel, other.kernel),
    )
    for what, before, after in compared:
        if before != after:
            yield FieldChange(what, "", before, after)


def _slot_fields(
    one: ComparedOperator, other: ComparedOperator, pairs: Mapping[str, str]
) -> Iterator[FieldChange]:
    nothing = ComparedSlot()
    slots = other.slots if one.operator != other.operator else {**one.slots, **other.slots}
    for slot in slots:
        before, after = one.slots.get(slot, nothing), other.slots.get(slot, nothing)
        old_form, new_form = before.stored, after.stored
        if before.quantization != after.quantization:  # it says the dtype: only sizes remain
            old_form, new_form = (form.rpartition(" ")[2] for form in (old_form, new_form))
        same_kind = (before.stored, before.quantization) == (after.stored, after.quantization)
        changed = same_kind and before.sample != after.sample
        old_values, new_values = (before.values, after.values) if changed else ("", "")
        # A group is called by its first tensor, which may have another name in the second graph.
        tensor, colon, pill = before.group.partition(":")
        compared: tuple[tuple[What, str, str], ...] = (
            ("input", pairs.get(before.source, before.source), after.source),
            ("constant", old_form, new_form),
            ("values", old_values, new_values),
            ("quantization", before.quantization, after.quantization),
            ("qparams", before.qparams, after.qparams),
            ("group", f"{pairs.get(tensor, tensor)}{colon}{pill}", after.group),
        )
        for what, old, new in compared:
            if old != new:
                yield FieldChange(what, slot, old, new)
