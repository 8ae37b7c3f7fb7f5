"""An int8 cache: a quarter of the bytes, an untouched past, and the logits of a float cache."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Decoder
from quantfx.decoder import Runner
from quantfx.decoding.quantize_cache import CacheLeaf, QuantizeCache
from quantfx.passes.inputs.leaves import leaves_in
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.seeded import seeded
from tests.models.decoder import SmallDecoder
from tests.refusals import refused


def drawn(rows: int, count: int, seed: int) -> Tensor:
    return torch.randint(0, 96, (rows, count), generator=torch.Generator().manual_seed(seed))


PROMPT, LONG, NEXT = drawn(1, 6, 0), drawn(1, 128, 1), drawn(1, 24, 2)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return seeded(SmallDecoder)


@pytest.fixture(scope="module")
def decoder(model: nn.Module) -> Decoder:
    return quantfx.quantize_decoder(model, PROMPT, cache="int8", prompts=[drawn(4, 64, 3)])


def walk(run: Runner) -> tuple[Tensor, list[list[Tensor]]]:
    """Return the logits of NEXT behind LONG, and the tensors of the cache after each token."""
    with torch.no_grad():
        _, cache = run.prefill(LONG)
        logits, caches = [], [leaves_in(cache)]
        for at in range(NEXT.shape[1]):
            found, cache = run.decode(NEXT[:, at : at + 1], cache)
            logits.append(found)
            caches.append(leaves_in(cache))
    return torch.cat(logits, 1), caches


def test_logits_are_those_of_a_float_cache_within_a_decibel(
    model: nn.Module, decoder: Decoder
) -> None:
    with torch.no_grad():
        exact = model(torch.cat((LONG, NEXT), 1))[0][:, LONG.shape[1] :]
    with_float, _ = walk(quantfx.quantize_decoder(model, PROMPT).module)
    with_int8, _ = walk(decoder.module)
    assert sqnr_db(exact, with_int8) > sqnr_db(exact, with_float) - 1
    assert sqnr_db(with_float, with_int8) > 45
    agree = (with_int8.argmax(-1) == with_float.argmax(-1)).float().mean()
    assert agree >= 23 / 24


def test_the_past_stays_to_the_bit_and_takes_a_quarter(decoder: Decoder) -> None:
    _, caches = walk(decoder.module)
    for before, after in pairwise(caches):
        for old, new in zip(before, after, strict=True):
            assert new.dtype == torch.int8
            assert new.shape[2] == old.shape[2] + 1
            assert torch.equal(new[:, :, : old.shape[2]], old)
    told = [note for note in decoder.decode.report.notes if note.startswith("quantize-cache: ")]
    # Four tensors of 64 channels.
    assert len(told) == 1
    assert all(
        each in told[0]
        for each in ("4 tensors", " 256 bytes", " 1024", "256 values", "up to 64 tokens")
    )
    assert sum(each.nbytes for each in caches[0]) == 256 * LONG.shape[1]


def test_both_forms_compute_what_the_qdq_graphs_do(decoder: Decoder) -> None:
    ours, caches = walk(decoder.module)
    theirs, others = walk(Runner(decoder.prefill.quantized, decoder.decode.quantized))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    for one, two in zip(caches[-1], others[-1], strict=True):
        assert int((one.int() - two.int()).abs().max()) <= 1


def test_a_value_beyond_its_range_saturates(model: nn.Module) -> None:
    """Half of the heads have a range of 1e-3, which nearly all values exceed."""
    token, past = PROMPT[:, :1], [(torch.ones(1, 4, 2, 16),) * 2] * 2
    graph = quantfx.capture(model, (token, past))
    scale = torch.full((1, 4, 1, 16), 1.0)
    scale[:, :2] = 1e-3 / 127
    leaf = CacheLeaf(2, 1, (1, 4, 2, 16), torch.float32, scale)
    made = QuantizeCache((leaf, None, None, leaf), 1, 1)
    run = Pipeline((made,)).run(graph)
    assert [each.nbytes for each in leaves_in(made.inputs((token, past))[1])] == [
        128,
        512,
        512,
        128,
    ]
    _, found = run(*made.inputs((token, past)))
    new = found[0][0][:, :, 2:]
    assert new.dtype == torch.int8
    assert new[:, :2].abs().float().mean() > 120
    assert int(new.abs().max()) == 127
    assert found[0][1].dtype == torch.float32
    with refused("input-shape", says="torch.int8", site="cache[0][0]"):
        run(token, past)


def test_files_keep_the_cache(tmp_path: Path, decoder: Decoder) -> None:
    decoder.save(tmp_path / "decoder")
    again = quantfx.load_decoder(tmp_path / "decoder")
    assert again.decode.report.notes == decoder.decode.report.notes
    (ours, mine), (theirs, other) = walk(decoder.module), walk(again.module)
    assert torch.equal(ours, theirs)
    assert all(map(torch.equal, mine[-1], other[-1]))
    [told] = again.decode.explain("cache_0_0_read")
    assert "made by quantize-cache" in told.verdict


def test_a_file_is_read_where_no_decoder_was_made(tmp_path: Path, decoder: Decoder) -> None:
    decoder.decode.save(tmp_path / "decode.quantfx")
    code = "import sys, quantfx; print(quantfx.load(sys.argv[1]).module.code.count('grow_cache'))"
    command = [sys.executable, "-c", code, str(tmp_path / "decode.quantfx")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "4"


def test_its_operators_are_no_operators_of_the_model(decoder: Decoder) -> None:
    for result in (decoder.prefill, decoder.decode):
        report = result.report
        assert not any(op in report.uncovered for op in ("aten.div.Tensor", "aten.clamp.default"))
        assert not any(op.startswith("quantfx.") for op in report.uncovered)
    [told] = decoder.decode.explain("cache_0_0_read")
    assert told.kind == "made"
    assert "made by quantize-cache" in told.verdict
    [gone] = decoder.decode.explain("cat")
    assert (gone.standing, gone.history[-1].by) == ("gone", "quantize-cache")


def test_float_caches_do_not_fit_and_the_float_model_is_not_asked(
    model: nn.Module, decoder: Decoder
) -> None:
    floats = [(torch.zeros(1, 4, 3, 16),) * 2] * 2
    with refused("input-shape", says="torch.int8", site="cache[0][0]"):
        decoder.decode.module(PROMPT[:, :1], floats)
    batch = (PROMPT[:, :1], floats)
    with refused("no-float-model", site="cache", fix="cache='float'"):
        decoder.decode.compare([batch], model=model)
    with refused("no-float-model", site="cache", fix="cache='float'"):
        decoder.decode.sensitivity([batch], model=model)


# In CI tests/test_decoder.py has the float forms; two graphs compile here.
@pytest.mark.sweep
def test_compiled_for_any_length(decoder: Decoder) -> None:
    compiled = decoder.compile()
    (ours, mine), (theirs, other) = walk(compiled), walk(decoder.module)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    for one, two in zip(mine[-1], other[-1], strict=True):
        assert int((one.int() - two.int()).abs().max()) <= 1
    for before, after in pairwise(mine):
        for old, new in zip(before, after, strict=True):
            assert torch.equal(new[:, :, : old.shape[2]], old)


# A library is compiled and run where quantfx is not. In CI tests/passes/graph/test_plain_operators.py
# compares what libraries and ONNX models hold in place of our operators.
_RUN = """
import sys, torch
run = torch._inductor.aoti_load_package(sys.argv[1])
made = run(*torch.load(sys.argv[2]))
torch.save(torch.utils._pytree.tree_leaves(made), sys.argv[3])
assert "quantfx" not in sys.modules
"""


@pytest.mark.sweep
def test_a_library_runs_without_quantfx(tmp_path: Path, decoder: Decoder) -> None:
    files = [str(tmp_path / name) for name in ("decode.pt2", "inputs.pt", "outputs.pt")]
    compiled = decoder.decode.compile(wrapper="aot", package=files[0])
    inputs = (NEXT[:, :1], decoder.module.prefill(LONG)[1])
    expected = leaves_in(decoder.module.decode(*inputs))
    torch.save(inputs, files[1])
    subprocess.run([sys.executable, "-c", _RUN, *files], check=True, cwd=tmp_path)
    for found in (torch.load(files[2]), leaves_in(compiled(*inputs))):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.sweep
def test_generated_cpp_calls_its_operators(decoder: Decoder) -> None:
    compiled = decoder.decode.compile(wrapper="cpp")
    for context in (LONG, PROMPT):
        inputs = (NEXT[:, :1], decoder.module.prefill(context)[1])
        expected = leaves_in(decoder.module.decode(*inputs))
        torch.testing.assert_close(leaves_in(compiled(*inputs)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.sweep
def test_onnx_models_take_and_return_integers(tmp_path: Path, decoder: Decoder) -> None:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()  # optimized, it rounds the rows of linears, too
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    _, cache = decoder.prefill.quantized(LONG)
    for result, inputs in ((decoder.prefill, (LONG,)), (decoder.decode, (NEXT[:, :1], cache))):
        result.export_onnx(tmp_path / "model.onnx")
        session = runtime.InferenceSession(str(tmp_path / "model.onnx"), options)
        names = [each.name for each in session.get_inputs()]
        given = zip(names, leaves_in(inputs), strict=True)
        found = session.run(None, {name: leaf.numpy() for name, leaf in given})
        expected = leaves_in(result.quantized(*inputs))
        assert [each.dtype for each in expected[1:]] == [torch.int8] * 4
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(one), two, rtol=1e-3, atol=1)
        torch.testing.assert_close(torch.from_numpy(found[0]), expected[0], rtol=1e-3, atol=1e-3)
