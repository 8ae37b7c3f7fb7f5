from __future__ import annotations

from functools import partial

import pytest
import torch

from quantfx.passes.graph.graphs import Site
from quantfx.passes.observers.derived import DerivedFrom
from quantfx.passes.observers.fixed import FixedQParams
from quantfx.passes.observers.including import MustInclude
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.observers.observer_name import NamedObserver, observer_name
from quantfx.passes.quant.spec import QuantSpec
from tests.refusals import refused


class Own(MinMaxObserver):
    """Somebody's own observer."""


def own(spec: QuantSpec, label: str) -> Own:
    return Own(spec, label)


@pytest.mark.parametrize(
    ("observer", "name"),
    [
        ("mse", "mse"),
        (Own, "Own"),
        (own, "own"),
        (partial(Own), "Own"),
        (MustInclude(1.0), "MustInclude"),
        (FixedQParams(0.5), "fixed"),
        (DerivedFrom((Site("", "linear", "input"),)), "derived from linear.input"),
        (NamedObserver("Own"), "Own"),
    ],
)
def test_a_class_has_its_own_name_and_not_that_of_its_metaclass(
    observer: object, name: str
) -> None:
    assert observer_name(observer) == name


def test_the_observer_of_a_file_observes_nothing() -> None:
    spec = QuantSpec(torch.uint8, 0, 255, observer=NamedObserver("Own"))
    with refused("spec-observer: linear.input", fix="the class itself", says="'Own'"):
        make_observer(spec, "linear.input")
