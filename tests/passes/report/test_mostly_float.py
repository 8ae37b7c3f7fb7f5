from __future__ import annotations

from dataclasses import replace

from quantfx.backends.native import native
from quantfx.passes.graph.graphs import Site
from quantfx.passes.report.float_remedy import _NATIVE_LAYERS as NATIVE_LAYERS
from quantfx.passes.report.mostly_float import Balance, add_reached, headline
from quantfx.passes.report.outcome import SiteOutcome
from quantfx.passes.report.work import OperatorWork


def row(
    name: str, op: str, macs: int | None, weights: int = 0, reason: str | None = None
) -> OperatorWork:
    """A planned operator unless there is a reason."""
    return OperatorWork(
        Site("", name),
        op,
        macs=macs,
        weight_bytes=weights,
        planned=reason is None,
        reason=reason or "",
    )


LINEAR = row("linear", "aten.linear.default", 100, 400)


def said(*work: OperatorWork, backend: str = "x86", planned: int = 1) -> str:
    return headline(work, backend=backend, planned=planned)


def test_nothing_is_said_while_most_is_quantized() -> None:
    assert said(LINEAR) == ""
    half = row("mm", "aten.mm.default", 100, 400, "")
    assert said(LINEAR, half) == ""
    assert said(LINEAR, replace(half, macs=101)) != ""
    assert said(LINEAR, replace(half, weight_bytes=401)) != ""
    assert said(LINEAR, row("experts", "mine.experts.default", None, 0, "")) == ""


def test_the_causes_come_by_their_share_with_what_would_change_them() -> None:
    assert said(
        LINEAR,
        row("mm", "aten.mm.default", 200, 0, ""),
        row("mm_1", "aten.mm.default", 400, 0, ""),
        row("experts", "mine.experts.default", None, 7600, ""),
        row("linear_1", "aten.linear.default", 300, 0, "kept float: rule module='0'"),
        row("tiny", "aten.layer_norm.default", 0, 4, ""),
        row("matmul", "aten.matmul.default", 20, 0, "… is computed, not a stored weight"),
    ) == (
        "most of the model stays float: 90% of the multiply-accumulates and 95% of the weight "
        "bytes. Causes: mine.experts.default x1 (95% of the weight bytes, multiply-accumulates not "
        "known): not an operator of torch's: write it in torch's own operators, or give the "
        "backend a template and a kernel for it; aten.mm.default x2 (59% of the "
        "multiply-accumulates): no template takes it: write it as torch.nn.functional.linear, or "
        "as matmul and select that; aten.linear.default x1 (29% of the multiply-accumulates): kept "
        "float: rule module='0': change that rule of the config; 2 smaller in report.work"
    )


def test_other_ways_out() -> None:
    up = row("up", "aten.conv_transpose2d.input", 900, 0, "no kernel")
    assert said(LINEAR, up).endswith("no kernel: backend='native' has kernels for it")
    assert said(LINEAR, up, backend="native").endswith("no kernel")
    only = "no static template takes lstm, only dynamic"
    lstm = row("lstm", "aten.lstm.input", 900, 0, f"{only} (the config's default)")
    ask = "write Config().op('lstm', 'dynamic'), or config='dynamic' for the whole model"
    assert said(LINEAR, lstm).endswith(f"default): {ask}")
    half = row("linear_1", "aten.linear.default", 900, 0, "float32: … is bfloat16, not float32")
    assert said(LINEAR, half).endswith("not float32: quantize model.float()")
    other = row("cdist", "aten.bilinear.default", 900, 0, "")
    assert said(LINEAR, other).endswith("give the backend a template and a kernel for it")
    loop = row("loop", "higher_order.while_loop", None, 900, "")
    assert said(LINEAR, loop).endswith("multiply-accumulates not known): no template takes it")


def test_a_model_without_any_plan_says_so() -> None:
    assert said(planned=0) == "nothing is quantized"
    assert said(row("mm", "aten.mm.default", 5, 0, ""), planned=0).startswith(
        "nothing is quantized: 100% of the multiply-accumulates. Causes: aten.mm.default x1"
    )


def test_native_has_templates_for_what_it_is_advised_for() -> None:
    known = {
        str(target).split(".")[1]
        for template in native().recipe.patterns.templates
        for target in template.anchor.targets
    }
    assert set(NATIVE_LAYERS) <= known


def test_a_site_that_missed_its_kernel_stays_float() -> None:
    outcome = SiteOutcome(
        Site("", "linear"),
        "",
        "linear",
        mode="static",
        reach="kernel",
        converted=True,
        kernel="qlinear",
    )
    assert add_reached([LINEAR], (outcome,)) == (LINEAR,)
    for missed in (
        replace(outcome, kernel="", reason="no kernel for it"),
        replace(outcome, compiled="", reason="no kernel for it"),
    ):
        [found] = add_reached([LINEAR], (missed,))
        assert (found.planned, found.reason) == (False, "no kernel for it")
        assert said(found).startswith("most of the model stays float: 100%")
    [found] = add_reached([LINEAR], (replace(outcome, converted=False),))
    assert found.reason == "it was planned, but not converted"


def test_the_balance_as_a_line() -> None:
    experts = row("experts", "mine.experts.default", None, 2**22 - 400, "")
    balance = Balance.of([LINEAR, row("mm", "aten.mm.default", 2_999_900, 0, ""), experts])
    assert str(balance) == (
        "quantized: 0% of 3.0 M multiply-accumulates, 0% of 4.0 MiB of weights; "
        "multiply-accumulates not known of mine.experts.default x1"
    )
    assert str(Balance.of([LINEAR])) == (
        "quantized: 100% of 100 multiply-accumulates, 100% of 0.4 KiB of weights"
    )
    assert str(Balance.of([])) == ""
