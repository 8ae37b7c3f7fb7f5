"""The base of quantizers for Inductor's oneDNN kernels: configs on quantfx's templates."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule, Node

from quantfx.backends.x86 import x86
from quantfx.compat.quantizers.match_round import Round, selected_by_module, selected_by_op
from quantfx.compat.terms.quantizer import Quantizer
from quantfx.passes.config.config import Config
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.template import Check, Template

_WORDS: dict[Any, str] = {
    nn.Conv1d: "conv1d",
    F.conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    F.conv2d: "conv2d",
    nn.Linear: "linear",
    F.linear: "linear",
    nn.MaxPool2d: "max_pool2d",
    F.max_pool2d: "max_pool2d",
    torch.cat: "cat",
    nn.AvgPool2d: "avg_pool2d",
    F.avg_pool2d: "avg_pool2d",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool2d",
    F.adaptive_avg_pool2d: "adaptive_avg_pool2d",
    torch.flatten: "flatten",
    torch.matmul: "matmul",
    torch.mul: "mul",
}
_OPS = tuple(dict.fromkeys(_WORDS.values()))
_ON_REQUEST = ("matmul",)
# Checks of what Inductor can fuse, fold or run; PT2E quantizers leave these to Inductor.
_LATER_CHECKS = {"distinct", "dies_here", "float32", "foldable", "batched"}
_STORED = "constant"
_UNSHAPED = ("conv", "linear")


class InductorQuantizer(Quantizer):
    """Annotates matches of a backend's templates, as configs ask.

    Configs for module names come first, then configs for operators, then the global config. The
    first config whose part of the model holds the whole match decides. None keeps its part float.
    """

    patterns: ClassVar[PatternSet]
    training_patterns: ClassVar[PatternSet] = PatternSet("none", (), ())
    passes: ClassVar[Pipeline]

    def __init__(self) -> None:
        self.global_config: Any = None
        self.operator_type_qconfig: dict[str, Any] = {}
        self.module_name_qconfig: dict[str, Any] = {}

    def set_global(self, quantization_config: Any) -> Self:
        """Quantize all operators that are quantized by default (all but matmul)."""
        if self._is_of_one_kind("the whole model", quantization_config):
            self.global_config = quantization_config
        return self

    def get_global_quantization_config(self) -> Any:
        """Return the config for the whole model; warn if there is none."""
        if self.global_config is None:
            warnings.warn("no global config was set: call set_global first", stacklevel=2)
        return self.global_config

    def set_module_name_qconfig(self, module_name: str, quantization_config: Any) -> Self:
        """Quantize the module of that name, or with None leave it float."""
        if self._is_of_one_kind(module_name, quantization_config):
            self.module_name_qconfig[module_name] = quantization_config
        return self

    def set_module_type_qconfig(self, module_type: Any, quantization_config: Any) -> Self:
        """Quantize the operator of a module class, in any spelling, or with None leave it float."""
        return self._set_op(module_type, quantization_config)

    def set_function_type_qconfig(
        self, function_type: Callable[..., Any], quantization_config: Any
    ) -> Self:
        """Quantize the operator of a function, in any spelling, or with None leave it float."""
        return self._set_op(function_type, quantization_config)

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate ``model``, config by config; skip nodes with an annotation."""
        recipe = self._context(False).recipe
        words = recipe.patterns.vocabulary if recipe else {}
        for selected, config in self._selections(words):
            context = self._context(config is not None and bool(config.is_qat))
            Round(model, self.passes, context).run(selected, config)
        return model

    def validate(self, model: GraphModule) -> None:
        """Accept every model: whatever the templates matched has a kernel."""

    def _selections(self, words: Any) -> Iterator[tuple[Callable[[Node], bool], Any]]:
        for name, config in self.module_name_qconfig.items():
            yield selected_by_module(name), config
        for word, config in self.operator_type_qconfig.items():
            yield selected_by_op((word,), _OPS, words), config
        if self.global_config is not None:
            default = tuple(op for op in _OPS if op not in _ON_REQUEST)
            yield selected_by_op(default, _OPS, words), self.global_config

    @classmethod
    @functools.cache
    def _context(cls, qat: bool) -> Context:
        patterns = cls.training_patterns | cls.patterns if qat else cls.patterns
        recipe = x86(patterns=_as_others_match(patterns)).recipe
        config = Config()
        for op in _ON_REQUEST:  # which configs reach them is decided here, not in the passes
            config = config.op(op, "static")
        return Context(replace(recipe, name=cls.__name__, config=config))

    def _set_op(self, kind: Any, config: Any) -> Self:
        if not self._is_of_one_kind(kind, config):
            return self
        if kind not in _WORDS:
            known = ", ".join(sorted({each.__name__ for each in _WORDS}))
            warnings.warn(
                f"{kind} has no quantized kernel, its config is ignored; one of {known}",
                stacklevel=3,
            )
            return self
        self.operator_type_qconfig[_WORDS[kind]] = config
        return self

    def _is_of_one_kind(self, part: object, config: Any) -> bool:
        """Whether ``config`` is of the same kind as earlier configs; warns if not."""
        if config is None:
            return True
        others = [*self.module_name_qconfig.values(), *self.operator_type_qconfig.values()]
        others = [each for each in (*others, self.global_config) if each is not None]
        reasons: list[str] = []
        if any(bool(each.is_qat) != bool(config.is_qat) for each in others):
            reasons.append("Mixed QAT and Non-QAT configs are not supported")
        dynamic = _is_dynamic(config)
        if dynamic is not None and {_is_dynamic(each) for each in others} - {None, dynamic}:
            reasons.append("Mixed dynamic and static configs are not supported")
        for reason in reasons:
            warnings.warn(f"{reason}: the config for {part} is ignored", stacklevel=4)
        return not reasons


def _as_others_match(patterns: PatternSet) -> PatternSet:
    """Return ``patterns`` without the checks of what Inductor can do with matches.

    A template with a stored weight also gets a form, tried last, for a computed or passed weight,
    as in a loop body.
    """

    def kept(template: Template, check: Check) -> bool:
        shape = check.name == "same_shape" and template.group in _UNSHAPED
        return not shape and check.name not in _LATER_CHECKS

    stored = [_keep_checks(each, kept) for each in patterns.templates]
    passed = [
        replace(
            _keep_checks(each, lambda _, check: check.name != _STORED), name=f"{each.name}_passed"
        )
        for each in stored
        if any(check.name == _STORED for check in each.checks)
    ]
    return replace(patterns, templates=(*stored, *passed))


def _keep_checks(template: Template, kept: Callable[[Template, Check], bool]) -> Template:
    return replace(template, checks=tuple(c for c in template.checks if kept(template, c)))


def _is_dynamic(config: Any) -> bool | None:
    """Whether activations are quantized dynamically; None if they are not quantized."""
    spec = config.input_activation
    return None if spec is None else bool(spec.is_dynamic)
