"""The kernel that each template reaches by each route, with this torch on this machine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import quantfx
from quantfx.backends.backend import Backend
from quantfx.backends.direct.family import Direct
from quantfx.passes.report.compare_sites import SiteComparison
from quantfx.passes.report.contract import planned_matches
from quantfx.passes.report.outcome import FUSED, UNFUSED, SiteOutcome
from quantfx.patterns.template import Template
from quantfx.result import Result
from quantfx.tools.doctor.check import Status
from quantfx.tools.doctor.native_examples import NATIVE_EXAMPLES
from quantfx.tools.doctor.template_examples import EXAMPLES

# Allowed difference of a kernel from the float arithmetic that it replaces: a tie may round the
# other way, and floats may add in another order.
STEPS, ERROR = 1, 1e-5

# A residual sum is a separate operator until the graph is compiled.
WITHOUT_SUM = {
    "qconv2d_pointwise.binary": "qconv_pointwise",
    "qlinear_pointwise.binary": "qlinear_pointwise",
    "qlinear_pointwise.binary_tensor": "qlinear_pointwise.tensor",
}


@dataclass(frozen=True)
class TemplateRow:
    """The outcome of the match in a template's example.

    Attributes:
        template: Its name.
        mode: Its mode.
        on_request: Whether only a rule of the config makes it match.
        promised: The kernel, ``int8 <op>`` where int8 passes through, or ``fused``.
        lowered: The kernel in the lowered module; empty if there is none.
        compiled: The kernel in the compiled module; None if not tried.
        status: ``problem`` if it missed its kernel.
        reason: Why it missed its kernel.
    """

    template: str
    mode: str
    on_request: bool
    promised: str
    lowered: str = ""
    compiled: str | None = None
    status: Status = "ok"
    reason: str = ""

    def failed(self, reason: str) -> TemplateRow:
        """Return the row with a problem; it keeps the first line of ``reason``."""
        return replace(self, status="problem", reason=reason.strip().partition("\n")[0])


def examine(backend: Backend, name: str, *, compiles: bool) -> TemplateRow:
    """Quantize and lower the example of a template, and compile it.

    Args:
        backend: The backend of the template.
        name: Name of the template.
        compiles: Whether to compile, which takes seconds.
    """
    template = backend.recipe.patterns[name]
    row = TemplateRow(name, template.mode, template.on_request, _promise(template))
    compiles = compiles and not backend.eager
    here = not any(family.not_here for family in backend.kernels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row states what they say
        try:
            result = _quantize(backend, name)
            seen = backend.recipe.patterns[template.becomes] if template.becomes else template
            row = _check_lowered(row, seen, result, here=here)
            if compiles and here and row.status == "ok":
                row = replace(row, compiled="")  # stays if compiling raises
                row = _check_compiled(row, seen, result)
        except Exception as error:  # any error here is a finding of doctor
            row = row.failed(f"{type(error).__name__}: {error}")
    return row


def _quantize(backend: Backend, name: str) -> Result:
    example = (EXAMPLES | NATIVE_EXAMPLES)[name]
    inputs = example.inputs()
    return quantfx.quantize(
        example.model(),
        inputs,
        calibration=[inputs],
        backend=backend,
        config=example.config,
        progress=False,
        check_inputs=False,
        compare=False,
    )


def _promise(template: Template) -> str:
    if template.reach == "layout":
        return f"int8 {template.anchor.ops[0].name}"
    return template.kernel or FUSED


def _check_lowered(
    row: TemplateRow, template: Template, result: Result, *, here: bool
) -> TemplateRow:
    site = _site(template, result)
    if site is None:
        return row.failed("no template of this name matches its example")
    row = replace(row, lowered=site.kernel or "")
    expected = UNFUSED if row.promised == FUSED else WITHOUT_SUM.get(row.promised, row.promised)
    if not _reaches(row.lowered, expected):
        return row.failed(site.reason or f"lowered to {row.lowered}, not to {expected}")
    wrong = [e for e in result.compare_sites() if not e.within(STEPS, ERROR)] if here else []
    return row.failed(_off(wrong[0])) if wrong else row


def _reaches(kernel: str, promised: str) -> bool:
    """Whether ``kernel`` keeps a promise.

    Prepared plans may take any site. The native backend names ATen operators on quantized tensors
    by their dispatch key.
    """
    if kernel.startswith(f"{Direct.name}."):
        return True
    if promised == "QuantizedCPU":
        return kernel.startswith("aten.")
    return fnmatchcase(kernel, promised)


def _off(compared: SiteComparison) -> str:
    if compared.error is None:
        return f"{compared.kernel} is off by {compared.steps} steps"
    return f"{compared.kernel} is off by {compared.error:.1e} of the largest magnitude"


def _check_compiled(row: TemplateRow, template: Template, result: Result) -> TemplateRow:
    result.compile(strict=False)
    site = _site(template, result)
    row = replace(row, compiled=site.compiled if site and site.compiled else "")
    if _reaches(row.compiled or "", row.promised):
        return row
    reason = site.reason if site else ""
    return row.failed(reason or f"compiled to {row.compiled}, not to {row.promised}")


def _site(template: Template, result: Result) -> SiteOutcome | None:
    """Return the site of the template's match; the example may need other matches."""
    labels = {variant.label for variant in template.variants()}
    matched = {
        match.site
        for match in planned_matches(result.quantized)
        if match.annotation.template in labels
    }
    return next((site for site in result.report.sites if site.site in matched), None)
