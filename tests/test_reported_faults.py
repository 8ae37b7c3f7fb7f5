"""What users report of other quantizers: nothing happened and nobody said so, or it went wrong.

Each test names the report. Most reports have their test where the code is that they are about;
here is the rest.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Config, Pipeline, QuantfxWarning, backends, compat
from quantfx.passes import Context, Editor, GraphPass
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.errors import CaptureError, ContractError, ModeError, PipelineError
from quantfx.passes.graph.remark import RuleRemark
from quantfx.passes.pipeline.record import remarks_of
from quantfx.patterns import resolve_op
from quantfx.tools.models.seeded import seeded
from tests.export_cases import CASES, Net
from tests.models.small import mlp
from tests.refusals import refused, warned
from tests.unchecked import capture, quantize

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(4, 8, generator=GENERATOR)
IMAGE = torch.randn(2, 3, 6, 6, generator=GENERATOR)
DEFAULT = compat.get_default_x86_inductor_quantization_config()
CAT = resolve_op("aten.cat.default")


def norm_behind_linear() -> nn.Sequential:
    return seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)))


def assert_near(given: Tensor, expected: Tensor) -> None:
    assert float((given - expected).detach().abs().max()) < 0.03 * float(
        expected.detach().abs().max()
    )


class WithoutGradients(nn.Module):
    """A layer with a batch norm, under ``torch.no_grad()`` as inference code has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


@pytest.mark.parametrize("form", ["model", "program", "graph"])
def test_a_forward_without_gradients_is_quantized(form: str) -> None:
    """All operators are in a nested graph then, which was left alone, silently."""
    model: nn.Module = seeded(WithoutGradients)
    program = torch.export.export(model, (IMAGE,))
    given = {"model": model, "program": program, "graph": program.module()}[form]
    result = quantize(given, (IMAGE,))
    report = result.report
    assert (report.planned, report.converted, report.lowered) == (1, 1, 1)
    assert_near(result.module(IMAGE), model(IMAGE))


def test_a_nested_graph_in_training_mode_is_refused() -> None:
    program = torch.export.export(seeded(WithoutGradients).train(), (IMAGE,))
    with refused("captured-mode", CaptureError, site="batch_norm", fix="model.eval"):
        quantize(program, (IMAGE,))


def _asks(op: str) -> str:
    """Return an expression for the way out of a recurrent layer that is only to be stored so."""
    return (
        rf"no weight-only template takes {op}, only dynamic, static \(the config's default\): write "
        rf"Config\('weight-only'\)\.op\('{op}', 'dynamic'\), or config='dynamic' for the whole model"
    )


NOTHING: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), IMAGE, "operator for transposed conv"),
    "lstm": (lambda: nn.LSTM(8, 8), X, _asks("lstm")),
    "gru": (lambda: nn.GRU(8, 8), X, _asks("gru")),
    "rnn": (lambda: nn.RNN(8, 8), X, _asks("rnn")),
    "lstm cell": (lambda: nn.LSTMCell(8, 8), X, _asks("lstm_cell")),
    "gru cell": (lambda: nn.GRUCell(8, 8), X, _asks("gru_cell")),
    "rnn cell": (lambda: nn.RNNCell(8, 8), X, _asks("rnn_tanh_cell")),
    "norm": (lambda: nn.LayerNorm(8), X, "without a template: aten.layer_norm.default x1"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_layers_without_a_kernel_say_so(name: str) -> None:
    """A model of such layers came back as it was, as if it had been quantized."""
    make, x, says = NOTHING[name]
    config = "weight-only" if says.startswith("no weight-only") else None
    with refused("nothing-to-quantize", ContractError, says=says):
        quantize(seeded(make), (x,), config=config)


@pytest.mark.parametrize(
    ("config", "site"),
    [
        (Config().type(nn.LayerNorm, "static"), "LayerNorm'"),
        (Config().module("1", "dynamic"), "module='1'"),
        (Config().where(lambda node: "norm" in node.name, "static"), "where="),
    ],
    ids=["type", "module", "function"],
)
def test_a_rule_for_layers_without_a_template_is_a_warning_and_a_row(
    config: Config, site: str
) -> None:
    """A config for LayerNorm was accepted and did nothing."""
    backend = backends.get("x86").with_config(config)
    graph = capture(norm_behind_linear(), (X,))
    with warned("unused-rule", says="layer_norm: backend 'x86' has no template for it") as caught:
        prepared = backend.prepare(graph)
    assert len([each for each in caught if each.category is QuantfxWarning]) == 1
    [remark] = remarks_of(prepared, RuleRemark)
    assert site in remark.rule
    assert "decides nothing" in remark.reason


@pytest.mark.parametrize(
    ("config", "unmatched"),
    [
        (Config().type(nn.LayerNorm, None), "error"),  # float is what it is
        (Config().module("*", "static"), "error"),  # the linear is quantized
        # Of a model in parts, the layers that the rule is for may be in another.
        (Config().type(nn.LayerNorm, "static"), "remark"),
    ],
    ids=["float", "some", "a part"],
)
def test_a_rule_that_may_be_meant_is_no_warning(config: Config, unmatched: Any) -> None:
    backend = backends.get("x86").with_config(config)
    graph = capture(norm_behind_linear(), (X,))
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        Pipeline((CheckConfig(unmatched=unmatched),)).run(graph, backend.context)


@pytest.mark.parametrize(
    "quantizer",
    [
        compat.X86InductorQuantizer(),
        compat.X86InductorQuantizer().set_module_name_qconfig("does.not.exist", DEFAULT),
    ],
    ids=["no config", "no such module"],
)
def test_a_quantizer_that_asks_for_nothing_is_a_warning(
    quantizer: compat.X86InductorQuantizer,
) -> None:
    """A name with a typo, or no config at all, made a float model, silently."""
    exported: Any = torch.export.export(mlp(), (X,)).module()
    with pytest.warns(UserWarning, match="annotated nothing in this graph"):
        compat.prepare_pt2e(exported, quantizer)


def test_a_quantizer_that_asks_for_something_is_none() -> None:
    exported: Any = torch.export.export(mlp(), (X,)).module()
    quantizer = compat.X86InductorQuantizer().set_module_name_qconfig("0", DEFAULT)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*annotated nothing")
        compat.prepare_pt2e(exported, quantizer)


def test_a_prepared_graph_is_copied_and_resumed_and_not_pickled() -> None:
    """Pickling a prepared model failed inside torch.export, or lost what it was prepared for."""
    backend = backends.get("x86")
    prepared = backend.prepare(capture(mlp(), (X,)))
    quantfx.calibrate(prepared, [X])
    expected = backend.convert(prepared)(X)
    with refused("not-picklable", PipelineError, fix="state_dict()"):
        pickle.dumps(prepared)
    fresh = backend.prepare(capture(mlp(), (X,)))
    fresh.load_state_dict(prepared.state_dict())
    for twin in (fresh, copy.deepcopy(prepared)):
        assert torch.equal(backend.convert(twin)(X), expected)
    again = pickle.loads(pickle.dumps(backend.convert(prepared)))
    assert torch.equal(again(X), expected)
    with refused("not-captured", PipelineError, fix="float model", says="quantized already"):
        quantize(again, (X,), calibration=[X])


def test_a_prepared_graph_has_a_mode() -> None:
    """eval() of a prepared model was not implemented."""
    prepared = backends.get("x86").prepare(quantfx.capture(mlp(), (X,)))
    assert prepared.eval() is prepared
    with refused("captured-mode", ModeError, fix="prepare_qat"):
        prepared.train()


def test_an_exported_module_is_not_changed() -> None:
    """Preparing rewrote the exported module that it was given."""
    exported: Any = torch.export.export(mlp(), (X,)).module()
    before = str(exported.graph), exported.code, copy.deepcopy(exported.state_dict())
    assert quantize(exported, (X,)).report.lowered == 2
    assert before[:2] == (str(exported.graph), exported.code)
    torch.testing.assert_close(exported.state_dict(), before[2], rtol=0, atol=0)


@dataclass(frozen=True)
class MergeCats(GraphPass):
    """``cat([cat([a, b]), c]) -> cat([a, b, c])``."""

    name: ClassVar[str] = "merge-cats"

    def rewrite(self, editor: Editor, context: Context) -> int:
        merged = 0
        for node in editor.graph.find_nodes(op="call_function", target=CAT):
            [tensors] = node.args
            if any(each.target is CAT for each in tensors):
                parts = [p for t in tensors for p in (t.args[0] if t.target is CAT else [t])]
                editor.replace(node, editor.call(CAT, (parts,), before=node))
                for each in tensors:
                    editor.erase_unused(each)
                merged += 1
        return merged


def test_rewrites_back_to_back_leave_an_ordered_graph() -> None:
    """Replacing one cat, and then the cat that reads it, left a reader in front of its input."""

    def body(x: Tensor) -> Tensor:
        y = torch.cat([x, x + 1])
        z = torch.cat([y, x * 2])
        return torch.cat([z, y]).relu()

    graph = capture(Net(body).eval(), (X,))
    merged = Pipeline((MergeCats(),)).run(graph)
    assert len(merged.graph.find_nodes(op="call_function", target=CAT)) == 1
    merged.graph.lint()
    assert torch.equal(merged(X), body(X))
    [cat] = merged.graph.find_nodes(op="call_function", target=CAT)
    assert cat.meta["val"].shape == (20, 8)


def test_a_tensor_that_is_joined_with_itself() -> None:
    """cat([x, x]) made one observer too many."""
    first, second = seeded(lambda: nn.Conv2d(3, 4, 1)), seeded(lambda: nn.Conv2d(8, 4, 1))
    model = Net(lambda a, b, x: b(torch.cat([y := a(x), y], 1)), first, second).eval()
    result = quantize(model, (IMAGE,))
    report = result.report
    assert (report.planned, report.converted, report.lowered) == (3, 3, 3)
    assert_near(result.module(IMAGE), model(IMAGE))


def test_branches_reach_the_kernels() -> None:
    """Layers inside of torch.cond stayed float, silently."""
    case = CASES["cond"]
    [x] = case.inputs
    batches = [x, -x]
    assert len({bool(batch.sum() > 0) for batch in batches}) == 2, "both branches run"
    model = case.make()
    graph = capture(model, (x,))  # the model itself would be compiled by torch.cond, for seconds
    result = quantize(model, (x,), calibration=batches)
    report = result.report
    assert (report.planned, report.converted, report.lowered) == (2, 2, 2)
    for batch in batches:
        assert_near(result.module(batch), graph(batch))
    with refused("export-rejects", CaptureError, site="true_graph_0", fix="prepare()"):
        quantize(graph, (x,))
