"""The templates of the native backend and of its relatives."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from quantfx.backends.quantized.rows import NativeRow, NativeVariant, native_variant
from quantfx.patterns.loader import load
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.quant import Quant
from quantfx.patterns.template import Template

_HALF = "fp16"


@cache
def pattern_set(chosen: NativeVariant) -> PatternSet:
    """Return the templates of the rows of ``chosen``, and the templates beyond the rows."""
    everything = _load_everything()
    native = everything.of_mode("static", "dynamic", "fp16", "weight-only", "weight-only-4bit")
    dropped = _templates_of(native_variant("native").rows, native) - _templates_of(
        chosen.rows, everything
    )
    added = _templates_of(chosen.rows, everything) - set(native.names)
    kept = (*(set(native.names) - dropped), *added)
    return replace(everything.only(*kept), name=chosen.name)


def _load_everything() -> PatternSet:
    base = load("native_layers") | load("native_ops")
    rows = [row for row in native_variant("legacy").rows if "default_op_fp16" in row.dtypes]
    legacy = {row.template for row in rows}
    legacy |= {f"{row.template}_scalar" for row in rows if row.by_tensors}
    halves = tuple(
        _make_half(template)
        for template in base.templates
        if template.mode == "static" and template.name in legacy
    )
    return replace(base, templates=base.templates + halves)


def _templates_of(rows: tuple[NativeRow, ...], patterns: PatternSet) -> set[str]:
    """Return the templates of ``rows``, including those with a number operand."""
    names = {
        outcome.template.name
        for row in rows
        for outcome in row.outcomes(patterns)
        if outcome.template is not None
    }
    numbers = {row.template for row in rows if row.by_tensors}
    scalars = {name.replace(each, f"{each}_scalar") for name in names for each in numbers}
    return names | (scalars & set(patterns.names))


def _make_half(template: Template) -> Template:
    """Return the template of static half precision: every tensor is rounded to it.

    torch has no kernels for it. The arithmetic is float32 on rounded tensors, as in FX graph mode's
    reference graphs, except for operators that pass half precision through there.
    """
    weights = [role.name for role in template.roles if template.is_weight(role.name)]
    roles = [role for role in (*template.quant, *weights) if role != "out"]
    out = [role for role in template.quant if role == "out"]
    return replace(
        template,
        name=f"{template.name}_static_fp16",
        mode="static-fp16",
        reach="reference",
        kernel="",
        quant=dict.fromkeys((*roles, *out), Quant(_HALF)),
    )
