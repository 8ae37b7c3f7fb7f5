"""The rows of torch's native BackendConfig and of its relatives, and the outcome of each."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from quantfx.patterns.errors import QuantfxError, unknown_name
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.template import Mode, Template

Observation = Literal["different", "share", "none"]
Status = Literal["lowered", "reference only", "no kernel", "not expressible", "not observed"]

# The mode of each dtype config, and the suffix of template names of that mode.
_MODES: dict[str, tuple[Mode, str]] = {
    "weighted_op_quint8": ("static", ""),
    "default_op_quint8": ("static", ""),
    "input_output_only_quint8": ("static", ""),
    "fixed_unit": ("static", ""),
    "fixed_signed_unit": ("static", ""),
    "default_op_fp16": ("static-fp16", "_static_fp16"),
    "default_dynamic_int8": ("dynamic", "_dynamic"),
    "default_dynamic_float16": ("fp16", "_fp16"),
    "weight_only_quint8": ("weight-only", "_weight_only"),
    "weight_only_quint4x2": ("weight-only-4bit", "_weight_only_4bit"),
}
_NO_KERNEL = "no kernel of torch's takes it in these dtypes, whichever engine is set"


@dataclass(frozen=True)
class NativeRow:
    """One pattern of a BackendConfig.

    Attributes:
        pattern: Modules, functions and methods of tensors, as Python writes them.
        group: E.g. ``conv``, ``share-qparams``.
        observation: Whether the result's qparams differ from the input's, are shared with them, or
            neither is observed.
        dtypes: Names of dtype configs, in order of preference.
        template: Name of its templates without the mode; empty if there is none.
        status: Why there is no template, in two words; empty if there is one.
        reason: Why there is no template, as a sentence.
        by_tensors: The observation with 0, 1 or 2 tensors among the operands; empty if it is the
            same for all.
        root: Name of torch.ao's module of the row; likewise ``reference``, ``qat`` and ``fused``.
        fuser: Name of torch.ao's function that fuses it.
        index: ``(weight or bias, position)`` among the arguments of a function.
    """

    pattern: str
    group: str
    observation: Observation
    dtypes: tuple[str, ...]
    template: str = ""
    status: Status | None = None
    reason: str = ""
    by_tensors: tuple[Observation, ...] = ()
    root: str = ""
    reference: str = ""
    qat: str = ""
    fused: str = ""
    fuser: str = ""
    index: tuple[tuple[str, int], ...] = ()

    def outcomes(self, patterns: PatternSet) -> Iterator[Outcome]:
        """Yield the outcome of the row for each of its dtype configs.

        Args:
            patterns: The templates of a backend.
        """
        for dtype in self.dtypes:
            mode, suffix = _MODES.get(dtype, (None, ""))
            name = f"{self.template}{suffix}"
            if self.status is not None:
                yield Outcome(
                    dtype, mode=None, template=None, status=self.status, reason=self.reason
                )
            elif not self.template or mode is None or name not in patterns.names:
                yield Outcome(
                    dtype, mode=mode, template=None, status="no kernel", reason=_NO_KERNEL
                )
            else:
                template = patterns[name]
                lowered = template.reach == "kernel"
                status: Status = "lowered" if lowered else "reference only"
                reason = "" if lowered else "torch has no kernel for static half precision"
                yield Outcome(dtype, mode=mode, template=template, status=status, reason=reason)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a row for one dtype config.

    Attributes:
        dtype: Name of the dtype config.
        mode: Mode of configs that ask for it; None if there is none.
        template: Name of the template that annotates and lowers it.
        status: The outcome in two words.
        reason: Why it is not lowered.
    """

    dtype: str
    _: KW_ONLY
    mode: Mode | None
    template: Template | None
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class NativeVariant:
    """A relative of the native config.

    Attributes:
        name: E.g. ``onednn``.
        rows: Its rows, in order.
        engine: Engine of its kernels; empty for the native config itself.
        declared_only: Whether it has only rows, without kernels.
    """

    name: str
    rows: tuple[NativeRow, ...]
    engine: str = ""
    declared_only: bool = False


VARIANTS = ("native", "legacy", "fbgemm", "x86", "qnnpack", "onednn", "executorch", "tensorrt")


@cache
def native_variant(name: str) -> NativeVariant:
    """Return the native config or a relative.

    Args:
        name: One of ``VARIANTS``; ``legacy`` also has static half precision.

    Raises:
        QuantfxError: there is no variant of that name; names the nearest.
    """
    if name not in VARIANTS:
        raise unknown_name(QuantfxError, "variant", name, VARIANTS)
    if name in ("native", "legacy"):
        return NativeVariant(name, _native(legacy=name == "legacy"))
    return _relative(name, _read("variants")["variant"][name])


def dtype_configs() -> Mapping[str, Mapping[str, Any]]:
    """Return input, output, weight and bias of each dtype config, by name."""
    table: Mapping[str, Mapping[str, Any]] = _read("rows")["dtype"]
    return table


def _relative(name: str, table: Mapping[str, Any]) -> NativeVariant:
    without, groups = table.get("without", ()), table.get("without_groups", ())
    only, share = table.get("only"), table.get("share", ())
    dtypes = table.get("dtypes", {})
    kept = [
        replace(row, observation="share") if row.pattern in share else row
        for row in _native(legacy=False)
        if row.pattern not in without
        and row.group not in groups
        and (only is None or row.pattern in only)
    ]
    first = {row.group: row for row in _native(legacy=False)}
    added = [
        _row(each, like.group, like.observation, tuple(each.get("dtypes", like.dtypes)))
        for each in table.get("rows", ())
        for like in [first[each["group"]]]
    ]
    rows = tuple(
        replace(row, dtypes=tuple(d for each in row.dtypes for d in dtypes.get(each, (each,))))
        for row in (*kept, *added)
    )
    return NativeVariant(name, rows, table.get("engine", ""), table.get("declared_only", False))


def _native(*, legacy: bool) -> tuple[NativeRow, ...]:
    return tuple(
        _row(row, group, table["observation"], _dtypes(row, table, legacy))
        for group, table in _read("rows")["group"].items()
        for row in table["rows"]
    )


def _dtypes(row: Mapping[str, Any], table: Mapping[str, Any], legacy: bool) -> tuple[str, ...]:
    more = table.get("legacy_dtypes", ()) if legacy else ()
    return (*row.get("dtypes", table.get("dtypes", ())), *more)


def _row(
    table: Mapping[str, Any], group: str, observation: Observation, dtypes: tuple[str, ...]
) -> NativeRow:
    given: Any = {key: _value(value) for key, value in table.items()}
    return NativeRow(**{"observation": observation} | given | {"group": group, "dtypes": dtypes})


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(value.items())
    return tuple(value) if isinstance(value, list) else value


@cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))
