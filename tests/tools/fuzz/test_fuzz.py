"""Random models of every template: what must hold of each does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.backends.x86 import pattern_set
from quantfx.dynamo.options import read_options
from quantfx.passes.graph.batch_norm import NormStatistics
from quantfx.passes.graph.facts import facts_of
from quantfx.patterns.loader import load
from quantfx.patterns.template import Template
from quantfx.tools.fuzz import run
from quantfx.tools.fuzz.case import Case, make_case
from quantfx.tools.fuzz.check import Fault, _Checking, check
from quantfx.tools.fuzz.draft import Draft, run_source
from quantfx.tools.fuzz.plant import Planted, is_writable, near_misses, plant
from quantfx.tools.fuzz.run import variants
from quantfx.tools.fuzz.tables_and_recurrent import TABLES_AND_RECURRENT
from tests import unchecked

# Seeds in CI: those that caught the mutants of tests/mutants/README.md, but for those of plans, which
# this process does not make, and others up to eleven in a row. MANY are in a sweep.
FEW = [*range(11), 16, 20, 22, 23, 25, 26, 32, 34, 38, 45, 63, 72, 74, 79, 122, 137, 361]
MANY = 10_000
ALL = 100  # programs in which every template is planted
SAVED = 5  # every how many are saved and loaded in CI
PART = 14
X86 = variants("x86")
BACKEND = X86[0][0]
WRITABLE = [each for each in BACKEND.recipe.patterns.templates if is_writable(each)]
WITH_PLANS = pattern_set(plans=True)
OTHERS = [
    each for each in BACKEND.recipe.patterns.templates if is_writable(each, TABLES_AND_RECURRENT)
]
# Seeds of models with tables and recurrent layers that hold all of OTHERS, and that found faults (11,
# 136). torch.export takes up to a second for each such layer, so other near misses are in the sweep.
FEW_OTHERS = [26, 77, 105, 11, 54, 93, 136, 44]
ALL_OTHERS = 300  # models in which each near miss is planted


@cache
def case_of(seed: int) -> Case:
    return make_case(seed, BACKEND)


@cache
def other_case_of(seed: int) -> Case:
    return make_case(seed, BACKEND, TABLES_AND_RECURRENT)


def hold(
    seeds: Iterable[int],
    name: str = "x86",
    *,
    saves: bool = True,
    compiles: bool = False,
    others: bool = False,
) -> None:
    turns = variants(name)
    for seed in seeds:
        backend, options = turns[seed % len(turns)]
        x86 = other_case_of if others else case_of
        case = x86(seed) if name == "x86" else make_case(seed, backend)
        faults = check(case, backend, saves=saves, compiles=options if compiles else None)
        assert not faults, f"{'; '.join(map(str, faults))}\n{case}"


@pytest.mark.parametrize("first", range(0, len(FEW), PART))
def test_random_models_hold(first: int) -> None:
    seeds = FEW[first : first + PART]
    hold(seeds[:SAVED], saves=True)
    hold(seeds[SAVED:], saves=False)


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(0, MANY, 100))
def test_many_random_models_hold(first: int) -> None:
    hold(range(first, first + 100))


def test_random_models_with_tables_and_recurrent_layers_hold() -> None:
    hold(FEW_OTHERS[:3], saves=True, others=True)
    hold(FEW_OTHERS[3:], saves=False, others=True)


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(0, ALL_OTHERS, 50))
def test_many_random_models_with_tables_and_recurrent_layers_hold(first: int) -> None:
    hold(range(first, first + 50), others=True)


@pytest.mark.sweep
def test_torch_compile_agrees_for_tables_and_recurrent_layers() -> None:
    hold([*range(8), 26], compiles=True, others=True)


def test_random_models_of_the_native_backend_hold_and_torch_compile_agrees() -> None:
    hold(range(3), "native", compiles=True)


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(0, 500, 50))
def test_many_random_models_of_the_native_backend_hold(first: int) -> None:
    hold(range(first, first + 50), "native", compiles=True)


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(0, 40, 10))
def test_torch_compile_agrees_with_result_compile(first: int) -> None:
    hold(range(first, first + 10), compiles=True)


@pytest.mark.parametrize("seed", range(len(X86)))
def test_torch_compile_is_asked_for_the_variant(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Backend] = []

    def stop(model: Any, *, backend: str, options: Any) -> None:
        asked.append(read_options(backend, "x86", options, None).backend("x86"))
        raise RuntimeError("only the options matter here")

    monkeypatch.setattr(torch, "compile", stop)
    backend, options = X86[seed]
    case = case_of(seed)
    assert [fault.check for fault in check(case, backend, compiles=options)] == ["failed"]
    assert asked == [backend.with_config(case.config)]


def test_the_summary_counts_the_seeds_that_ran(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "check", lambda case, *_, **__: [Fault(case.seed, "a", "test")])
    assert run.main(["--backend", "native", "--count", "5", "--until-fault"]) == 1
    assert "\n1 seeds, 1 with faults" in capsys.readouterr().out


def test_every_template_is_planted() -> None:
    cases = [case_of(seed) for seed in range(ALL)]
    planted = Counter(each.template for case in cases for each in case.planted if not each.miss)
    assert set(planted) == {each.name for each in WRITABLE}
    others = [each for seed in FEW_OTHERS for each in other_case_of(seed).planted]
    assert {each.name for each in OTHERS} <= {each.template for each in others if not each.miss}
    assert set(BACKEND.recipe.patterns.names) == set(planted) | {each.name for each in OTHERS}
    assert 0.1 * len(cases) < sum(case.free for case in cases) < 0.4 * len(cases)


@pytest.mark.sweep
def test_every_near_miss_of_tables_and_recurrent_layers_is_planted() -> None:
    others = [each for seed in range(ALL_OTHERS) for each in other_case_of(seed).planted]
    found = {(each.template, each.miss) for each in others}
    assert {(each.name, miss) for each in OTHERS for miss in near_misses(each)} <= found


def rules(template: Template) -> list[str]:
    """Return what never matches if it is broken; other ranks a template may take."""
    return [each for each in near_misses(template) if each != "rank"]


@pytest.mark.parametrize(
    "template",
    [each for each in (*WRITABLE, *OTHERS, *load("plans").templates) if rules(each)],
    ids=lambda each: each.name,
)
def test_every_rule_of_a_template_can_be_broken(template: Template) -> None:
    for miss in ("", *rules(template)):
        drafts = (planted(seed, template, miss) for seed in range(100))
        found, draft = next(each for each in drafts if each[0])
        assert found is not None
        names = run_source(draft.source(draft.unread), 0)
        inputs = eval(draft.inputs_source, names)
        graph = unchecked.capture(names["Model"]().eval(), inputs)
        folded = BACKEND.prepare_pipeline.upto("fold-scales").run(graph, BACKEND.context)
        matches = WITH_PLANS.only(template.name).matcher().run(folded.graph)
        labels = {match.variant.label for match in matches}
        assert (found.label in labels) == (not miss), (miss, draft.source(draft.unread))


def planted(seed: int, template: Template, miss: str) -> tuple[Planted | None, Draft]:
    draft = Draft(seed)
    draft.add_input((2, 4, 8, 8))
    return plant(draft, template, miss), draft


def test_a_seed_is_the_same_model_and_data_each_time() -> None:
    one, other = make_case(3, BACKEND), make_case(3, BACKEND)
    assert str(one) == str(other)
    assert all(map(torch.equal, one.inputs(), other.inputs()))
    state = other.model().state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.model().state_dict().items())


def test_the_program_of_a_case_makes_its_model() -> None:
    case = case_of(5)
    with torch.random.fork_rng():
        made = run_source(str(case), case.seed)
    state = case.model().state_dict()
    assert all(torch.equal(value, state[k]) for k, value in made["model"].state_dict().items())
    assert all(map(torch.equal, made["inputs"], case.inputs()))


def test_the_lowered_graph_runs_once_with_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[torch.Size]] = []
    run = _Checking._run

    def noted(self: Any, module: Any, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        if isinstance(module, GraphModule) and "lowered" in facts_of(module):
            ran.append([each.shape for each in inputs])
        return run(self, module, inputs)

    monkeypatch.setattr(_Checking, "_run", noted)
    free = next(seed for seed in FEW if case_of(seed).free)
    assert not check(case_of(free), BACKEND, saves=False)
    assert len(ran) == 2
    assert ran[0] != ran[1]


def test_a_lost_eps_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def scale(statistics: NormStatistics) -> torch.Tensor:
        reciprocal = statistics.var.double().rsqrt()
        return reciprocal if statistics.gamma is None else reciprocal * statistics.gamma.double()

    monkeypatch.setattr(NormStatistics, "scale", property(scale))
    with_norms = (seed for seed in FEW if "nn.BatchNorm" in case_of(seed).source)
    found = (fault.check for seed in with_norms for fault in check(case_of(seed), BACKEND))
    assert "fold-batch-norm differs" in found
