"""Specs of PT2E quantizers as makers of observers, the form in which passes carry them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.ao.quantization.observer import FixedQParamsObserver

from quantfx.passes.errors import AnnotationError, PipelineError
from quantfx.passes.quant.spec import QuantSpec

Kind = Literal["own", "fixed", "shared", "derived"]
_RANGE = ("dtype", "quant_min", "quant_max", "qscheme", "is_dynamic")
# Two places that hold one tensor share an observer if their specs agree on all of these.
_LIKENESS = (*_RANGE, "ch_axis", "scale", "zero_point")
_ABSENT = "absent"


def kind_of(spec: Any) -> Kind:
    """Return which kind of spec ``spec`` is, judged by its attributes.

    Raises:
        AnnotationError: it is not a spec.
    """
    for attribute, kind in _KINDS:
        if hasattr(spec, attribute):
            return kind
    raise AnnotationError(
        f"{spec!r} is not a quantization spec: it has neither observer_or_fake_quant_ctr nor "
        "edge_or_node, derived_from or scale",
        rule="not-a-spec",
        site=repr(spec),
    )


_KINDS: tuple[tuple[str, Kind], ...] = (
    ("edge_or_node", "shared"),
    ("derived_from", "derived"),
    ("observer_or_fake_quant_ctr", "own"),
    ("scale", "fixed"),
)


@dataclass(frozen=True)
class ForeignSpec:
    """Makes the observer that a PT2E spec asks for.

    Two are equal if their specs agree on the attributes that decide about sharing. The constructor
    is not one of these, because quantizers make a new one for every operator.

    Attributes:
        likeness: The attributes that decide about sharing.
        spec: The spec itself.
    """

    likeness: tuple[object, ...]
    spec: Any = field(compare=False, repr=False)

    @staticmethod
    def of(spec: Any) -> ForeignSpec:
        """Return the maker of ``spec``."""
        return ForeignSpec(tuple(getattr(spec, name, _ABSENT) for name in _LIKENESS), spec)

    def __call__(self, spec: QuantSpec, label: str) -> nn.Module:
        """Refuse: create-observers makes observers, as it knows what they derive from."""
        fix = "run create-observers before"
        raise PipelineError(f"{label} has no observer yet", rule="pass-order", site=label, fix=fix)

    @property
    def is_derived(self) -> bool:
        """Whether it derives from the observers of other places."""
        return kind_of(self.spec) == "derived"

    def make(self, sources: Sequence[nn.Module] = ()) -> nn.Module:
        """Return a fresh observer.

        Args:
            sources: The observers that it derives from, if any.
        """
        kind = kind_of(self.spec)
        if kind == "derived":
            return DerivedObserverOrFakeQuantize(self.spec, sources)
        values = {name: getattr(self.spec, name) for name in _RANGE}
        if kind == "fixed":
            constructor: Any = FixedQParamsObserver
            values |= {"scale": self.spec.scale, "zero_point": self.spec.zero_point}
        else:
            constructor = self.spec.observer_or_fake_quant_ctr
            # Only observers called PerChannel take ch_axis, by torch's convention.
            if "PerChannel" in _name(constructor):
                values["ch_axis"] = self.spec.ch_axis
        observer: nn.Module = constructor.with_args(**values)()
        return observer


@dataclass(frozen=True)
class ChosenModule:
    """Hands out one module; equal to another that hands out the same module."""

    module: nn.Module

    def __call__(self, spec: QuantSpec, label: str) -> nn.Module:
        """Return the module."""
        return self.module


def _name(constructor: Any) -> str:
    """Return the class name of a constructor, which may have arguments bound."""
    partial = getattr(constructor, "p", None)
    return str(getattr(partial.func if partial is not None else constructor, "__name__", ""))


class DerivedObserverOrFakeQuantize(nn.Module):
    """Identity; the spec's function computes its qparams from other observers.

    Args:
        spec: A derived quantization spec.
        obs_or_fqs: The observers of the places that the spec names.
    """

    def __init__(self, spec: Any, obs_or_fqs: Sequence[nn.Module]) -> None:
        super().__init__()
        self.dtype = spec.dtype
        self.obs_or_fqs = list(obs_or_fqs)  # a list, which does not register their state here
        self.derive_qparams_fn = spec.derive_qparams_fn
        self.quant_min = spec.quant_min
        self.quant_max = spec.quant_max
        self.qscheme = spec.qscheme
        self.ch_axis = spec.ch_axis

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point."""
        scale, zero_point = self.derive_qparams_fn(self.obs_or_fqs)
        return scale, zero_point
