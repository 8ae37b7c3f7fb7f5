"""The catalog: every template, pass and backend, and what templates are written with."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

import quantfx
from docs.generate.page import ROOT, Page, drawn, fence, table
from quantfx.backends import catalog as of_backends
from quantfx.backends.backend import Backend
from quantfx.passes import Context, Instrument, Pass, PassRecord
from quantfx.passes.capture.canonicalize import CANONICALIZE, CANONICALIZE_TRAINING
from quantfx.passes.catalog import PASSES
from quantfx.passes.draw.dot import to_dot
from quantfx.patterns import load
from quantfx.patterns.checks import PREDICATES, Predicate
from quantfx.patterns.dot import template_to_dot

SETS = ROOT / "patterns" / "sets"
_DOCSTRING_ALONE = (
    "{show_root_heading: false, show_root_toc_entry: false, members: false, show_bases: false}"
)


def catalog_pages() -> Iterator[Page]:
    """Yield an index and the pages."""
    sets = [_set_page(file) for file in sorted(SETS.glob("*.toml")) if file.stem != "vocabulary"]
    others = [_passes(), _backends(), _steps(), _words()]
    rows = [(f"[{page.title}]({Path(page.uri).name})", _lead(page)) for page in [*others, *sets]]
    made = "These pages are generated from the code when the documentation is built.\n\n"
    yield Page("catalog/index.md", "Catalog", made + table(("page", "about"), rows))
    yield from [*others, *sets]


def _lead(page: Page) -> str:
    return page.text.partition("\n\n")[0].replace("\n", " ")


def _set_page(file: Path) -> Page:
    """Return a page of one template set: the TOML of each template, and its drawing."""
    source = file.read_text(encoding="utf-8")
    lines = source.splitlines()
    comment = [line.lstrip("# ") for line in lines[: _first(lines)]]
    uri = f"catalog/templates-{file.stem}.md"
    drawings: dict[str, str] = {}
    parts = [" ".join(comment), ""]
    tables = re.split(r"^(?=(?:#[^\n]*\n)*\[)", source, flags=re.MULTILINE)
    for template in load(file.stem).templates:
        own = [text for text in tables if f"[template.{template.name}]" in text]
        if own:  # a set may extend another one
            parts += [f"## {template.name}\n", fence(own[0].strip(), "toml")]
            parts += drawn(template_to_dot(template), template.name, uri, drawings)
    return Page(uri, f"Templates: {file.stem}", "\n".join(parts), drawings)


def _words() -> Page:
    """Return a page of the operators and predicates that templates may name."""
    rows = [
        (f"`{name}`", _arguments(predicate), _text(predicate.function))
        for name, predicate in PREDICATES.items()
    ]
    parts = [
        "The names that templates may use: predicates for `check`, and operators for `op`.",
        "",
        "## Predicates\n",
        table(("predicate", "arguments", "what holds"), rows),
        "## Operators\n",
        "`vocabulary.toml` names these operators. A set adds others in its own table `[ops]`.\n",
        fence((SETS / "vocabulary.toml").read_text(encoding="utf-8"), "toml"),
    ]
    return Page("catalog/words.md", "Operators and predicates", "\n".join(parts))


def _arguments(predicate: Predicate) -> str:
    names = "1 node or role" if predicate.nodes == 1 else f"{predicate.nodes} nodes or roles"
    return f"{names}, then operators" if predicate.takes_ops else names


def _text(function: object) -> str:
    return " ".join((inspect.getdoc(function) or "").split()).replace("``", "`")


def _first(lines: list[str]) -> int:
    return next(i for i, line in enumerate(lines) if not line.startswith("#"))


def _passes() -> Page:
    """Return a page of every pass: docstring, options, facts, and where it stands."""
    parts = [
        "Every pass by its name in pipelines, with its options, and the pipelines that it is in.",
        "",
    ]
    places = _places()
    for kind in (*PASSES, *of_backends.passes()):
        names = [name for name in kind.names() if name in places] or list(kind.names())
        title = kind.name if not kind.named_by else f"{kind.name}-{kind.named_by}"
        parts += [f"## {title}\n", f"::: {kind.__module__}.{kind.__name__}"]
        parts += [
            f"    options: {_DOCSTRING_ALONE}",
            "",
        ]
        parts.append("\n".join(f"- {line}" for line in _about(kind, names, places)) + "\n")
    return Page("catalog/passes.md", "Passes", "\n".join(parts))


def _about(kind: type[Pass], names: list[str], places: dict[str, list[str]]) -> Iterator[str]:
    options = [f"`{f.name}={f.default!r}`" for f in fields(kind) if f.default is not MISSING]
    facts = [
        f"{verb} `{fact}`"
        for verb, each in (
            ("requires", kind.requires),
            ("provides", kind.provides),
            ("breaks", kind.breaks),
        )
        for fact in sorted(each)
    ]
    where = sorted({place for name in names for place in places.get(name, [])})
    if options:
        yield f"Options: {', '.join(options)}"
    yield f"Keeps the float function: {'yes' if kind.keeps_float else 'no'}"
    if facts:
        yield f"Facts: {', '.join(facts)}"
    yield f"In pipelines: {', '.join(where) or 'none unless asked for'}"


def _places() -> dict[str, list[str]]:
    """Return the name of each pass -> the pipelines that it is in."""
    pipelines = {"capture": CANONICALIZE, "capture for training": CANONICALIZE_TRAINING}
    for name in quantfx.backends.NAMES:
        backend = quantfx.backends.get(name, target="any", **_repairs(name))
        pipelines |= {f"{name} {stage}": each for stage, each in _pipelines(backend)}
    places: dict[str, list[str]] = {}
    for title, pipeline in pipelines.items():
        for each in pipeline.names:
            places.setdefault(each, []).append(title)
    return places


def _repairs(name: str) -> dict[str, Any]:
    return {"repair": True, "smooth": 0.7} if name == "x86" else {}


def _pipelines(backend: Backend) -> Iterator[tuple[str, quantfx.Pipeline]]:
    yield "prepare", backend.prepare_pipeline
    if backend.qat is not None:
        yield "after training", backend.qat.finish
    yield "convert", backend.convert_pipeline
    yield "lower", backend.lower_pipeline


def _backends() -> Page:
    """Return a page of every backend: specs, pipelines, templates, kernels."""
    parts = ["Every backend as data: specs, pipelines, templates and kernel families.", ""]
    for name in quantfx.backends.NAMES:
        backend = quantfx.backends.get(name, target="any")
        parts += [f"## {name}\n", f"On any target: {backend.policy}.\n"]
        if backend.unverified:
            parts.append(f"Not verified: {backend.unverified}.\n")
        specs = [(f"`{key}`", str(spec)) for key, spec in backend.recipe.specs]
        parts += ["### Specs\n", table(("tensor", "spec"), specs), "### Pipelines\n"]
        for stage, pipeline in _pipelines(backend):
            links = [f"[{each.name}](passes.md#{_anchor(each)})" for each in pipeline]
            parts.append(f"**{stage}**: {', '.join(links)}\n")
        families = ", ".join(f"`{family.name}`" for family in backend.kernels) or "none"
        templates = ", ".join(f"`{each}`" for each in backend.recipe.patterns.names)
        parts += ["### Kernel families\n", f"{families}\n", "### Templates\n", f"{templates}\n"]
        modes = ", ".join(backend.recipe.patterns.modes)
        parts += ["### Modes\n", f"{modes}\n"]
    return Page("catalog/backends.md", "Backends", "\n".join(parts))


def _anchor(each: Pass) -> str:
    return each.name if not each.named_by else f"{type(each).name}-{each.named_by}"


class _Drawn(Instrument):
    """Keeps what a pass made of the graph, as DOT text."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []

    def after(self, position: int, each: Pass, module: object, record: PassRecord) -> None:
        """Draw the graph, if the pass changed it."""
        if record.changed:
            assert isinstance(module, torch.fx.GraphModule)
            self.steps.append((each.name, to_dot(module)))


def _steps() -> Page:
    """Return a page of one network after each pass that changed it."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(3600, 10)).eval()
    x = torch.randn(8, 3, 32, 32)
    backend = quantfx.backends.get("x86", target="avx2", kernels="onednn")
    seen = _Drawn()
    graph = quantfx.capture(model, (x,))
    first = ("as captured", to_dot(graph))
    prepared = backend.prepare(graph, instruments=(seen,))
    quantfx.calibrate(prepared, [x], progress=False)
    quantized = backend.convert(prepared, instruments=(seen,))
    context = Context(backend.recipe, kernels=backend.kernels)
    backend.lower_pipeline.run(quantized, context, instruments=(seen,))
    uri = "catalog/steps.md"
    drawings: dict[str, str] = {}
    parts = [
        "A convolution, batch norm, relu, pool and linear, after each pass that changes it.",
        "",
    ]
    for number, (name, dot) in enumerate([first, *seen.steps]):
        parts.append(f"## {name}\n")
        parts += drawn(dot, f"{number:02d}-{name.replace(' ', '-')}", uri, drawings)
    return Page(uri, "A network, pass by pass", "\n".join(parts), drawings)
