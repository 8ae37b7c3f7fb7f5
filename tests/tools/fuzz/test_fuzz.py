"""Random models of every template: what must hold of each does."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch

from quantfx.backends.backend import Backend
from quantfx.passes.graph.batch_norm import NormStatistics
from quantfx.patterns.template import Template
from quantfx.tools.fuzz.case import Case, make_case
from quantfx.tools.fuzz.check import check
from quantfx.tools.fuzz.draft import Draft, run_source
from quantfx.tools.fuzz.plant import is_writable, near_misses, plant
from quantfx.tools.fuzz.run import variants

FEW, MANY = 40, 10_000  # seeds in CI, in a sweep
ALL = 100  # programs in which every template is planted
SAVED = 5  # every how many are saved and loaded in CI
PART = 20
X86 = variants("x86")


@cache
def case_of(seed: int) -> Case:
    return make_case(seed, X86[0])


def hold(seeds: range, turns: list[Backend] = X86, **how: Any) -> None:
    for seed in seeds:
        backend = turns[seed % len(turns)]
        case = case_of(seed) if turns is X86 else make_case(seed, backend)
        faults = check(case, backend, **how)
        assert not faults, f"{'; '.join(map(str, faults))}\n{case}"


@pytest.mark.parametrize("first", range(0, FEW, PART))
def test_random_models_hold(first: int) -> None:
    seeds = range(first, first + PART)
    hold(range(first, first + SAVED), saves=True)
    hold(seeds[SAVED:], saves=False)


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(0, MANY, 100))
def test_many_random_models_hold(first: int) -> None:
    hold(range(first, first + 100))


def test_random_models_of_the_native_backend_hold_and_torch_compile_agrees() -> None:
    hold(range(3), variants("native"), compiles=True)


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(0, 500, 50))
def test_many_random_models_of_the_native_backend_hold(first: int) -> None:
    hold(range(first, first + 50), variants("native"), compiles=True)


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(0, 40, 10))
def test_torch_compile_agrees_with_result_compile(first: int) -> None:
    hold(range(first, first + 10), compiles=True)


def test_every_template_is_planted() -> None:
    cases = [case_of(seed) for seed in range(ALL)]
    planted = Counter(each.template for case in cases for each in case.planted if not each.miss)
    templates = X86[0].recipe.patterns.templates
    assert all(map(is_writable, templates))
    assert set(planted) == {each.name for each in templates}
    assert 0.1 * len(cases) < sum(case.free for case in cases) < 0.4 * len(cases)


@pytest.mark.parametrize("template", X86[0].recipe.patterns.templates, ids=lambda each: each.name)
def test_every_rule_of_a_template_can_be_broken(template: Template) -> None:
    for miss in near_misses(template):
        found = None
        for seed in range(100):
            draft = Draft(seed)
            draft.add_input((2, 4, 8, 8))
            found = plant(draft, template, miss)
            if found:
                break
        assert found, miss
        assert found.miss == miss


def test_a_seed_is_the_same_model_and_data_each_time() -> None:
    one, other = make_case(3, X86[0]), make_case(3, X86[0])
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


def test_a_lost_eps_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def scale(statistics: NormStatistics) -> torch.Tensor:
        reciprocal = statistics.var.double().rsqrt()
        return reciprocal if statistics.gamma is None else reciprocal * statistics.gamma.double()

    monkeypatch.setattr(NormStatistics, "scale", property(scale))
    with_norms = (seed for seed in range(FEW) if "nn.BatchNorm" in case_of(seed).source)
    found = (fault.check for seed in with_norms for fault in check(case_of(seed), X86[0]))
    assert "fold-batch-norm differs" in found
