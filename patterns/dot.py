"""Draw templates as DOT text: a box per template, roles coloured by spec, optional parts dashed."""

from __future__ import annotations

from collections.abc import Iterator

from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.template import Constant, PatternNode, Role, Template

_SPEC_COLOURS = ("#9ecae1", "#fdae6b", "#a1d99b", "#bcbddc", "#fa9fb5", "#c7c7c7")
_FLOAT = "#ffffff"


def template_to_dot(template: Template) -> str:
    """Return a digraph that shows one template."""
    specs = PatternSet(template.name, (template,), ()).spec_names
    return _digraph(template.name, _template(template, specs, ""))


def pattern_set_to_dot(patterns: PatternSet) -> str:
    """Return a digraph that shows every template of a set, each in a box of its own."""
    specs = patterns.spec_names
    lines: list[str] = []
    for index, template in enumerate(patterns.templates):
        lines.append(f'  subgraph "cluster_{index}" {{')
        lines.append(f'    label="{template.name}"; style=rounded; color="#888888";')
        lines += [f"  {line}" for line in _template(template, specs, f"{template.name}/")]
        lines.append("  }")
    return _digraph(patterns.name, lines)


def _digraph(name: str, lines: Iterator[str] | list[str]) -> str:
    head = [
        f'digraph "{name}" {{',
        '  rankdir=TB; fontname="Helvetica";',
        '  node [shape=box, style="rounded,filled", fillcolor="#f5f5f5", fontname="Helvetica"];',
        '  edge [fontname="Helvetica", fontsize=10];',
    ]
    return "\n".join([*head, *lines, "}", ""])


def _template(template: Template, specs: tuple[str, ...], prefix: str) -> Iterator[str]:
    for role in template.roles:
        quant = template.quant.get(role.name)
        colour = _FLOAT if quant is None else _colour(quant.spec, specs)
        style = "filled,dashed" if role.optional else "filled"
        label = f"{role}\\n{quant}" if quant else f"{role}"
        yield (
            f'  "{prefix}${role.name}" [label="{label}", shape=ellipse, style="{style}", '
            f'fillcolor="{colour}"];'
        )
    for node in template.nodes:
        yield from _node(node, template, prefix)
    if "out" in template.quant:
        output = next(template.variants()).output.name
        out = template.quant["out"]
        yield f'  "{prefix}out" [label="out\\n{out}", shape=ellipse, style=filled];'
        yield f'  "{prefix}{output}" -> "{prefix}out";'


def _colour(spec: str, specs: tuple[str, ...]) -> str:
    return _SPEC_COLOURS[specs.index(spec) % len(_SPEC_COLOURS)]


def _node(node: PatternNode, template: Template, prefix: str) -> Iterator[str]:
    ops = "\\n".join(op.name for op in node.ops)
    literals = [f"{name}={b}" for name, b in node.arguments if isinstance(b, Constant)]
    label = "\\n".join([ops, *literals])
    style = "rounded,filled,dashed" if node.optional else "rounded,filled"
    width = 2 if node is template.anchor else 1
    yield f'  "{prefix}{node.name}" [label="{label}", style="{style}", penwidth={width}];'
    commuting = {name for op in node.ops for name in op.commutes or ()}
    for name, binding in node.arguments:
        if isinstance(binding, Constant):
            continue
        source = f"${binding.name}" if isinstance(binding, Role) else binding.node
        dashed = isinstance(binding, Role) and binding.optional
        attributes = [] if name in commuting else [f'label="{name}"']
        attributes += ["style=dashed"] if dashed or node.optional else []
        suffix = f" [{', '.join(attributes)}]" if attributes else ""
        yield f'  "{prefix}{source}" -> "{prefix}{node.name}"{suffix};'
