from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.fx import GraphModule

from quantfx.backends.x86 import CONVERT, PREPARE, x86
from quantfx.passes.annotate.annotate import Annotate
from quantfx.passes.capture.canonicalize import CANONICALIZE
from quantfx.passes.capture.remove_dead_code import RemoveDeadCode
from quantfx.passes.convert.insert_qdq import InsertQDQ
from quantfx.passes.convert.tidy import Tidy
from quantfx.passes.draw.dump_graphs import DumpGraphs
from quantfx.passes.errors import CalibrationError, PassError, PipelineError
from quantfx.passes.graph.facts import facts_of
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.failed_run import failed_run_of
from quantfx.passes.pipeline.instruments import CheckNumerics
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import records_of
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.schema import resolve_op
from tests.models.small import mlp
from tests.refusals import refused
from tests.unchecked import capture

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def others_set() -> PatternSet:
    """Templates of a group of somebody else's, which is known from now on."""
    template = replace(x86().recipe.patterns.templates[0], group="npu_2-rows")
    return PatternSet("npu", (template,), ())


@dataclass(frozen=True)
class Note(Pass):
    """A user's own pass: writes on every node's meta that it was there."""

    threshold: int = 3
    words: tuple[str, ...] = ()

    name: ClassVar[str] = "note"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        for node in module.graph.nodes:
            node.meta["note"] = self.threshold
        return PassResult(stats={"noted": len(module.graph.nodes)})


@dataclass(frozen=True)
class Break(Pass):
    """Misbehaves in the way ``how`` says."""

    how: str = "raise"

    name: ClassVar[str] = "break"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        [relu] = module.graph.find_nodes(op="call_function", target=resolve_op("aten.relu.default"))
        if self.how == "raise":
            raise RuntimeError("boom")
        if self.how == "order":
            relu.prepend(next(iter(relu.users)))
        if self.how == "maths":
            relu.target = resolve_op("aten.tanh.default")
        return PassResult()


def graph() -> GraphModule:
    return capture(mlp(), (X,))


def test_edits_return_another_pipeline() -> None:
    names = PREPARE.names
    assert PREPARE.without("annotate-max-pool").names == tuple(
        n for n in names if n != "annotate-max-pool"
    )
    assert PREPARE.after("share", Note()).names.index("note") == names.index("share") + 1
    assert PREPARE.before("share", Note()).names.index("note") == names.index("share")
    assert PREPARE.replace("share", Note()).names.index("note") == names.index("share")
    assert PREPARE.upto("propagate").names == names[: names.index("propagate") + 1]
    moved = PREPARE.move("annotate-mul", before="annotate-conv")
    assert moved.names.index("annotate-mul") == moved.names.index("annotate-conv") - 1
    assert sorted(moved.names) == sorted(names)
    assert PREPARE.names == names


def test_pipelines_are_values() -> None:
    assert Pipeline(PREPARE.elements, "prepare") == PREPARE
    assert (PREPARE + CONVERT).names == PREPARE.names + CONVERT.names
    assert hash(PREPARE) == hash(Pipeline(PREPARE.elements, "prepare"))


def test_text_form_round_trips_with_options_and_nesting() -> None:
    pipeline = Pipeline(
        (CANONICALIZE, *PREPARE.elements, Note(threshold=5, words=("a", "b")), InsertQDQ("float"))
    )
    text = str(pipeline)
    assert "note{threshold=5, words=('a', 'b')}" in text
    assert "insert-qdq{uncalibrated='float'}" in text
    assert text.startswith("canonicalize(inline-no-grad, ")
    assert Pipeline.parse(text, passes=(Note,)) == pipeline
    assert Pipeline.parse("") == Pipeline(())


def test_edits_reach_into_nested_pipelines() -> None:
    pipeline = Pipeline((CANONICALIZE, Note()))
    assert "remove-dropout" not in pipeline.without("remove-dropout").names
    assert pipeline.without("canonicalize").names == ("note",)
    assert pipeline.upto("canonicalize").names == CANONICALIZE.names


def test_an_annotate_pass_is_named_by_its_group() -> None:
    others_set()
    pipeline = Pipeline.parse("annotate-conv, annotate-npu_2-rows")
    assert pipeline.elements == (Annotate("conv"), Annotate("npu_2-rows"))
    assert pipeline.names == ("annotate-conv", "annotate-npu_2-rows")
    assert copy.deepcopy(pipeline).names == pipeline.names
    moved = replace(Annotate("conv"), group="linear")
    assert (moved.name, str(Pipeline((moved,)))) == ("annotate-linear", "annotate-linear")
    assert Pipeline((Annotate("conv"),)).fingerprint() != Pipeline((moved,)).fingerprint()
    for text in ("annotate", "annotate-conv{group='linear'}"):
        with refused("unknown-name", PipelineError):
            Pipeline.parse(text)


def test_a_group_that_nobody_knows_is_an_error_when_it_is_named() -> None:
    backend = x86()
    with refused("unknown-name", PipelineError, site="cnv", fix="load the", says=r"'conv'\?\)"):
        Annotate("cnv")
    with refused(
        "unknown-name", PipelineError, site="cnv", says=r"^column 18: annotate: no .*load"
    ):
        Pipeline.parse("tidy, annotate-cnv, share")
    other = others_set().groups
    assert other == {"npu_2-rows"}
    with refused("unknown-name", PipelineError, site="npu_2-rows", says="'x86' has no"):
        Pipeline.parse("annotate-npu_2-rows").run(graph(), backend.context)
    without = backend.without_templates("max_pool2d")
    assert "max-pool" not in {each.group for each in without.recipe.patterns.templates}
    done = Pipeline.parse("annotate-max-pool, annotate-rnn").run(graph(), without.context)
    assert [record.stats for record in records_of(done)[-2:]] == [{"matches": 0}] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "share, anotate-conv",
            "unknown-name: column 19: anotate-conv",
        ),
        (
            "insert-qdq{uncalibratd='float'}",
            "unknown-name: column 11: uncalibratd",
        ),
        ("insert-qdq{uncalibrated=float}", "pipeline-text: uncalibrated"),
        ("insert-qdq{uncalibrated", "pipeline-text: column 11"),
        ("share tidy", "pipeline-text: column 5"),
        ("share,,tidy", "pipeline-text: column 7"),
        ("some(share", "pipeline-text: column 10"),
    ],
)
def test_parse_errors_name_the_column_and_the_fix(text: str, message: str) -> None:
    with refused(message, PipelineError):
        Pipeline.parse(text)


def test_edit_errors() -> None:
    with refused("unknown-name", PipelineError, site="shar", says="'share'"):
        PREPARE.without("shar")
    with refused("ambiguous-name", PipelineError, site="note", says="2 times"):
        (PREPARE + Pipeline((Note(), Note()))).replace("note", Tidy())
    with refused("pass-place", PipelineError):
        PREPARE.move("share")


def place(name: str) -> int:
    """Where a pass stands in ``PREPARE``, from 1."""
    return [each.name for each in PREPARE.passes].index(name) + 1


def test_facts_are_checked_before_anything_runs() -> None:
    with pytest.raises(PipelineError) as missing:
        PREPARE.without("share").check()
    assert str(missing.value) == (
        f"insert-observers (pass {place('insert-observers') - 1} of {len(PREPARE.passes) - 1}) needs "
        "'shared': provided by share, which has not run on this module"
    )
    with refused("pass-order", PipelineError, site="insert-observers"):
        PREPARE.move("share", after="insert-observers").check()
    with refused("pass-order", PipelineError, site="insert-qdq"):
        Pipeline((*PREPARE.elements, InsertQDQ(), InsertQDQ())).check()
    with refused("pass-order", PipelineError, site="round-weights", says="'observed'"):
        x86().convert(graph())


def test_running_half_way_and_on_is_running_whole() -> None:
    backend = x86()
    whole = PREPARE.run(graph(), backend.context)
    half = PREPARE.upto("propagate").run(graph(), backend.context)
    assert "annotated" in facts_of(half)
    assert "observed" not in facts_of(half)
    rest = Pipeline(PREPARE.passes[PREPARE.names.index("propagate") + 1 :])
    assert str(rest.run(half, backend.context).graph) == str(whole.graph)


def test_a_users_own_pass_runs_and_is_recorded() -> None:
    module = graph()
    done = Pipeline((Note(threshold=7),)).run(module)
    assert all(node.meta["note"] == 7 for node in done.graph.nodes)
    assert not any("note" in node.meta for node in module.graph.nodes), "the input is not touched"
    record = records_of(done)[-1]
    assert (record.name, record.changed, record.stats) == ("note", False, {"noted": 9})
    assert record.seconds >= 0


def test_the_pipeline_finds_out_what_changed() -> None:
    done = Pipeline((Break("maths"), RemoveDeadCode())).run(graph())
    assert [record.changed for record in records_of(done)[-2:]] == [True, False]
    done = PREPARE.upto("annotate-linear").run(graph(), x86().context)
    changed = [record.name for record in records_of(done) if record.changed]
    assert changed[-1] == "annotate-linear", "an annotation is a change"
    assert "annotate-conv" not in changed


def test_the_input_module_is_never_changed() -> None:
    module = graph()
    before = str(module.graph), module.code, sorted(module.state_dict())
    prepared = x86().prepare(module)
    prepared(X)
    x86().convert(prepared)
    assert before == (str(module.graph), module.code, sorted(module.state_dict()))


@pytest.mark.parametrize(
    ("how", "rule"), [("raise", "pass-failed: break"), ("order", "invalid-graph: break")]
)
def test_a_bad_pass_is_caught_with_a_reproducer(how: str, rule: str) -> None:
    pipeline = Pipeline((Note(), Break(how), Note(4)))
    with refused(rule, PassError) as error:
        pipeline.run(graph())
    _, _, reproducer = str(error.value).rpartition("reproduce: ")
    assert reproducer.endswith(", passes=[Note, Break]).run(module, context)")
    known = {"Pipeline": Pipeline, "Note": Note, "Break": Break}
    with refused(rule, PassError):
        eval(reproducer, known | {"module": graph(), "context": None})


def test_our_own_errors_keep_their_type_and_gain_a_reproducer() -> None:
    prepared = x86().prepare(graph())
    with pytest.raises(CalibrationError) as error:
        CONVERT.run(prepared)
    until = "round-weights{from_samples=32}, correct-bias{from_samples=32}, insert-qdq"
    assert error.value.__notes__ == [f"reproduce: Pipeline.parse('{until}').run(module, context)"]


def test_numerics_are_checked_on_request() -> None:
    check = CheckNumerics((X,))
    PREPARE.run(graph(), x86().context, instruments=[check])
    with refused("changed-function", PassError, site="break", says="0 is") as caught:
        Pipeline((Break("maths"),)).run(graph(), instruments=[check])
    assert failed_run_of(caught.value) is None  # the pipeline alone does not show it


def test_dumps_are_written_only_for_passes_that_changed_something(tmp_path: Path) -> None:
    PREPARE.run(graph(), x86().context, instruments=[DumpGraphs(tmp_path)])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"{place(name) - 1:02}-{name}.{ending}"
        for name in ("annotate-linear", "share", "insert-observers")
        for ending in ("dot", "txt")
    ]


def test_fingerprint_covers_options_and_patterns() -> None:
    a, b = Pipeline((Note(3),)), Pipeline((Note(4),))
    assert a.fingerprint() == Pipeline((Note(),)).fingerprint()
    assert a.fingerprint() != b.fingerprint()
    less = x86().without_templates("flatten")
    assert PREPARE.fingerprint(x86().context) != PREPARE.fingerprint(less.context)


def test_one_clone_and_one_recompile_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    module, counts = graph(), [0]
    real = GraphModule.recompile

    def counted(self: GraphModule) -> object:
        counts[0] += len(self.graph.nodes) > 0  # the empty graph of a clone costs nothing
        return real(self)

    monkeypatch.setattr(GraphModule, "recompile", counted)
    PREPARE.run(module, x86().context)
    assert counts == [1]


def test_annotating_without_a_recipe_says_so() -> None:
    with refused("no-recipe", PipelineError, site="check-config"):
        PREPARE.run(graph())


def test_misuse_is_refused_with_the_fix() -> None:
    with refused("not-a-graph", PipelineError):
        PREPARE.run(mlp())  # type: ignore[arg-type]
    prepared = x86().prepare(graph())
    with refused("not-captured", PipelineError):
        x86().prepare(prepared)
    with refused("nested-name", PipelineError):
        Pipeline((Pipeline((Note(),)),))
    with refused("no-passes", PipelineError, site="empty"):
        Pipeline((Note(), Pipeline((), name="empty"))).upto("empty")
    with refused("unknown-name", PipelineError, site="eror", fix="error"):
        Pipeline.parse("insert-qdq{uncalibrated='eror'}")
    with refused("pass-order", PipelineError, site="insert-observers"):
        PREPARE.move("share", before="annotate-linear").check()
