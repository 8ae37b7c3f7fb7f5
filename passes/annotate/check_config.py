"""Refuse a config with rules that fit nothing in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch.fx import GraphModule

from quantfx.passes.config.decisions import Decisions
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.config.rule import ACTIVATIONS, WEIGHTS, Rule, SpecUse, TensorRead, TensorRule
from quantfx.passes.config.selectors import (
    CallSelector,
    CallSite,
    Named,
    OpSelector,
    call_sites,
)
from quantfx.passes.config.spec_change import FLOAT
from quantfx.passes.errors import ConfigError, PipelineError
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.remark import RuleRemark
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.patterns.errors import did_you_mean, unknown_name, warn
from quantfx.patterns.template import QuantizedArgument

_CHOICES = ("error", "warning", "remark")


@dataclass(frozen=True)
class CheckConfig(Pass):
    """Change nothing; raise a ``ConfigError`` that names every unused rule.

    1. A rule that selects nothing in this graph, with the nearest name that would, or selects only
       tensors that no template quantizes.
    2. A spec name that the backend does not bind.
    3. A mode that no template of the backend has, or no template for the operator of the rule.

    A rule that selects something but decides or changes nothing there gives a warning and a remark;
    so does a rule for modules or types that selects only operators without a template of its mode.

    Attributes:
        unmatched: The result of a rule that selects nothing: an ``error``, a ``warning`` with a
            remark, or only a ``remark``, for graphs that are part of a model.
    """

    unmatched: Literal["error", "warning", "remark"] = "error"

    name = "check-config"

    def __post_init__(self) -> None:
        if self.unmatched not in _CHOICES:
            raise unknown_name(PipelineError, "unmatched", self.unmatched, _CHOICES)

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Check the recipe's config against every graph of ``module``."""
        recipe = context.require_recipe(self.name)
        if not recipe.config.rules:
            _require(list(_unknown_modes(recipe)))
            return PassResult()
        calls = call_sites(module, recipe.patterns.vocabulary)
        _require(
            [*_unknown_modes(recipe), *_unknown_specs(recipe), *_find_impossible(recipe, calls)]
        )
        unmatched = [*_find_unmatched(recipe, calls), *_find_unquantized(recipe, calls)]
        if self.unmatched == "error":
            _require([_unused(rule, message) for rule, message in unmatched])
        decisions = {path: Decisions(recipe, path) for path, _ in all_graphs(module)}
        powerless = list(_find_powerless(recipe, calls))
        known = {rule for rule, _ in (*unmatched, *powerless)}
        unused = [
            *_find_shadowed(recipe, calls, decisions, known),
            *_find_without_effect(recipe, calls, decisions, known),
        ]
        # One part of the model may hold what a rule selects, another part what it decides.
        told = [*([] if self.unmatched == "remark" else powerless), *unused]
        for rule, message in (*(unmatched if self.unmatched == "warning" else ()), *told):
            warn(message, rule="unused-rule", site=str(rule), stacklevel=2)
        rows = (*unmatched, *powerless, *unused)
        remarks = tuple(RuleRemark(str(r), reason) for r, reason in rows)
        return PassResult(remarks=remarks, stats={"rules": len(recipe.config.rules)})


def _require(wrong: list[ConfigError]) -> None:
    """Raise one error for all faults."""
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        first = wrong[0]
        lines = [f"{len(wrong)} things are wrong in the config:"]
        lines += [f"  {each.message}" for each in wrong]
        raise ConfigError("\n".join(lines), rule=first.rule, site=first.site, fix=first.fix)


def _unused(rule: Rule, message: str) -> ConfigError:
    fix = "pass strict=False to continue without it"
    return ConfigError(message, rule="unused-rule", site=str(rule), fix=fix)


def _unknown_modes(recipe: Recipe) -> Iterator[ConfigError]:
    config, modes = recipe.config, recipe.patterns.modes
    asked = [("the default", config.default), *((f"rule {r}", r.mode) for r in config.call_rules)]
    for who, mode in asked:
        if mode is not None and mode != FLOAT and mode not in modes:
            error = unknown_name(ConfigError, "mode", mode, modes, of=f"backend '{recipe.name}'")
            yield error.within(who, ConfigError)


def _unknown_specs(recipe: Recipe) -> Iterator[ConfigError]:
    known = (ACTIVATIONS, WEIGHTS, *(name for name, _ in recipe.specs))
    for rule in recipe.config.call_rules:
        for name, _ in rule.specs:
            if name not in known:
                error = unknown_name(ConfigError, "spec", name, known)
                yield error.within(f"rule {rule}", ConfigError)


def _find_unmatched(recipe: Recipe, calls: list[CallSite]) -> Iterator[tuple[Rule, str]]:
    for rule in recipe.config.rules:
        if not any(rule.selector.selects(call) for call in calls):
            yield rule, f"rule {rule} selects nothing in this graph{_suggest(rule, calls)}"


def _find_unquantized(recipe: Recipe, calls: list[CallSite]) -> Iterator[tuple[Rule, str]]:
    """Yield rules about tensors that exist, but that no template quantizes."""
    slots = {
        (target, each.slot)
        for target, found in _readings(recipe).items()
        for each in found
        if each.role in each.template.quant
    }
    for rule in recipe.config.rules:
        if not isinstance(rule, TensorRule):
            continue
        selector = rule.selector
        sites = [
            (site, (call.node.target, site.removeprefix(f"{call.name}.").partition(".")[0]))
            for call in calls
            for site in call.tensors()
            if selector.selects_tensor(site)
        ]
        if sites and not any(slot in slots for _, slot in sites):
            yield rule, f"rule {rule} changes nothing: no template quantizes {sites[0][0]}"


def _suggest(rule: Rule, calls: list[CallSite]) -> str:
    selector = rule.selector
    if not isinstance(selector, Named):
        return ""
    names = {name for call in calls for name in selector.names(call)}
    return did_you_mean(selector.name, sorted(names), most=3)


def _find_impossible(recipe: Recipe, calls: list[CallSite]) -> Iterator[ConfigError]:
    """Yield rules with an operator or a call, and a mode for which it has no template."""
    for rule in recipe.config.call_rules:
        named = isinstance(rule.selector, (OpSelector, CallSelector))
        if not named or rule.mode is None or rule.mode == FLOAT:
            continue
        for call in calls:
            if rule.selector.selects(call):
                reason = _no_template(recipe, call, rule.mode)
                if reason is not None:
                    yield ConfigError(
                        f"rule {rule}: mode '{rule.mode}' for {call.ops[-1]}: {reason}",
                        rule="no-template",
                        site=str(rule),
                    )
                break


def _no_template(recipe: Recipe, call: CallSite, mode: str) -> str | None:
    target = call.node.target
    templates = recipe.patterns.templates
    modes = dict.fromkeys(m for t in templates if target in t.anchor.targets for m in t.modes)
    if mode in modes:
        return None
    if modes:
        return f"backend '{recipe.name}' has no such template, only {', '.join(modes)}"
    for op, reason in recipe.patterns.unsupported:
        if target in op.targets:
            return reason
    anchors = {op.name for t in templates if target in t.targets for op in t.anchor.ops}
    if anchors:
        return f"it is only taken after {', '.join(sorted(anchors))}; select its anchor"
    return f"backend '{recipe.name}' has no template for it"


def _find_powerless(recipe: Recipe, calls: list[CallSite]) -> Iterator[tuple[Rule, str]]:
    """Yield rules whose mode fits none of the operators that they select."""
    for rule in recipe.config.call_rules:
        if rule.mode is None or rule.mode == FLOAT:
            continue
        selected = [call for call in calls if rule.selector.selects(call)]
        why = [(call.ops[-1], _no_template(recipe, call, rule.mode)) for call in selected]
        if why and all(reason for _, reason in why):
            texts = list(dict.fromkeys(f"{op}: {reason}" for op, reason in why))
            more = [f"and {len(texts) - 3} more"] if len(texts) > 3 else []
            reasons = "; ".join([*texts[:3], *more])
            yield rule, f"rule {rule} decides nothing: mode '{rule.mode}' for {reasons}"


def _find_shadowed(
    recipe: Recipe,
    calls: list[CallSite],
    decisions: Mapping[str, Decisions],
    unmatched: set[Rule],
) -> Iterator[tuple[Rule, str]]:
    """Yield rules that other rules override wherever they select."""
    deciding = {decisions[call.graph].of(call.node).rule for call in calls}
    for rule in recipe.config.call_rules:
        if rule.mode is not None and not rule.specs and rule not in deciding | unmatched:
            yield rule, f"rule {rule} decides nothing: other rules decide wherever it selects"


def _find_without_effect(
    recipe: Recipe,
    calls: list[CallSite],
    decisions: Mapping[str, Decisions],
    unmatched: set[Rule],
) -> Iterator[tuple[Rule, str]]:
    """Yield rules that change specs with which none of the selected tensors is quantized."""
    single = [(rule, *each) for rule in recipe.config.rules for each in _changes(rule, recipe)]
    if not single:
        return
    readings = _readings(recipe)
    reads = [(call, list(_reads(recipe, call, decisions, readings))) for call in calls]
    for rule, name, reaches in single:
        has_effect = any(
            rule.selector.selects(call) and any(map(reaches, of_call))
            for call, of_call in reads
            if of_call
        )
        if not has_effect and rule not in unmatched:
            yield (
                rule,
                f"rule {rule}: {name}changes nothing: in the modes chosen, no tensor that it "
                "selects is quantized with a spec that it fits",
            )


def _changes(rule: Rule, recipe: Recipe) -> Iterator[tuple[str, Callable[[TensorRead], bool]]]:
    """Yield each change of ``rule`` by name, with a predicate for the tensors that it changes."""
    if isinstance(rule, TensorRule):
        selector = rule.selector
        yield "", lambda read: selector.selects_tensor(read.site)
    else:
        for (name, _), meant in zip(rule.specs, rule.meanings(dict(recipe.specs)), strict=True):
            yield f"{name}: ", partial(_is_used, uses=frozenset(meant))


def _is_used(read: TensorRead, *, uses: frozenset[SpecUse]) -> bool:
    return read.use in uses


def _reads(
    recipe: Recipe,
    call: CallSite,
    decisions: Mapping[str, Decisions],
    readings: Mapping[object, list[QuantizedArgument]],
) -> Iterator[TensorRead]:
    """Yield the tensors of ``call`` as they are quantized by templates that may take it."""
    decision = decisions[call.graph].of(call.node)
    asked = {recipe.config.default, *(rule.mode for rule in recipe.config.call_rules)}
    for reading in readings.get(call.node.target, ()):
        template = reading.template
        is_anchor = reading.node is template.anchor
        if is_anchor and decision.mode not in template.modes:
            continue
        if is_anchor and template.on_request and decision.rule is None:
            continue
        if asked.isdisjoint(template.modes):
            continue
        for site in call.tensors():
            if site.removeprefix(f"{call.name}.").partition(".")[0] == reading.slot:
                kind = WEIGHTS if template.is_weight(reading.role) else ACTIVATIONS
                yield TensorRead(site, SpecUse(template.specs[reading.role], kind))


def _readings(recipe: Recipe) -> Mapping[object, list[QuantizedArgument]]:
    """Return the arguments that the recipe's templates quantize, by overload."""
    found: dict[object, list[QuantizedArgument]] = {}
    for template in recipe.patterns.templates:
        for each in template.quantized_arguments():
            found.setdefault(each.target, []).append(each)
    return found
