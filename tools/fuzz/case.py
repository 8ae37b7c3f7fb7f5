"""A random model, its data and its quantization, all decided by a seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.backends.backend import Backend
from quantfx.passes.config.config import Config
from quantfx.patterns.template import MODES, Template
from quantfx.tools.fuzz.draft import REFUSALS, Draft, run_source
from quantfx.tools.fuzz.glue import write_glue
from quantfx.tools.fuzz.plant import Planted, is_writable, near_misses, plant
from quantfx.tools.fuzz.tables_and_recurrent import write_tied_head

SHAPES = ((2, 4, 8, 8), (2, 3, 6, 6), (4, 8), (2, 4, 8), (2, 6, 8), (2, 2, 4, 4, 4))
TRIES = 10
_NAME = re.compile(r"\bt\d+\b")


@dataclass(frozen=True)
class Case:
    """The case of a seed.

    Attributes:
        seed: The seed.
        source: The model as a program; ``Model`` is its name there.
        inputs_source: The inputs as a tuple.
        config: The config to quantize it with.
        planted: The calls of templates, and their near misses.
        free: Whether the first size of every input is free.
        overwrites: Whether tensors are overwritten; their readers may then stay float.
    """

    seed: int
    source: str
    inputs_source: str
    config: Config
    planted: tuple[Planted, ...]
    free: bool
    overwrites: bool

    def model(self) -> nn.Module:
        """Return the model in eval mode; its weights are the same each time."""
        model: nn.Module = self._seeded(lambda: run_source(self.source, self.seed)["Model"]())
        return model.eval()

    def inputs(self) -> tuple[Tensor, ...]:
        """Return the inputs; they are the same each time."""
        made: tuple[Tensor, ...] = self._seeded(lambda: eval(self.inputs_source, {"torch": torch}))
        return made

    def batches(self) -> list[tuple[Tensor, ...]]:
        """Return calibration data: the inputs, and others that take other branches."""
        inputs = self.inputs()
        return [inputs, tuple(-each for each in inputs)]

    @property
    def live(self) -> set[str]:
        """The tensors that results depend on; a template that is given up leaves dead lines."""
        *lines, returned = self.source.splitlines()
        found = set(_NAME.findall(returned))
        for line in reversed(lines):
            made, _, text = line.partition(" = ")
            if found & set(_NAME.findall(made)):
                found |= set(_NAME.findall(text))
        return found

    @property
    def dynamic_shapes(self) -> Any:
        """The free sizes, in the form of ``torch.export``."""
        if not self.free:
            return None
        return tuple({0: torch.export.Dim.AUTO} for _ in self.inputs())

    def __str__(self) -> str:
        """A program that makes the model and its inputs."""
        planted = "".join(
            f"# {each.result} is {each.label}{each.miss and ', but for ' + each.miss}\n"
            for each in self.planted
        )
        imports = "import torch\nimport torch.nn.functional as F\nfrom torch import nn"
        head = f"# seed {self.seed}, config {self.config}\n{imports}\n"
        made = f"torch.manual_seed({self.seed})\nmodel = Model().eval()"
        data = f"torch.manual_seed({self.seed})\ninputs = {self.inputs_source}"
        free = "\ndynamic_shapes = ({0: torch.export.Dim.AUTO},) * len(inputs)" * self.free
        return f"{head}\n{planted}{self.source}\n\n{made}\n{data}{free}\n"

    def _seeded(self, make: Callable[[], Any]) -> Any:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.seed)
            return make()


def make_case(seed: int, backend: Backend, among: Collection[str] = ()) -> Case:
    """Return case number ``seed`` for the templates of ``backend``.

    Args:
        seed: The seed.
        backend: The backend.
        among: Operators of tables and recurrent layers. If given, the first template has one of
            them, and later ones may.
    """
    for attempt in range(TRIES):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            case = _drawn(seed, attempt, backend, among)
        if _runs(case):
            return case
    raise RuntimeError(f"seed {seed}: no model of {TRIES} runs")


def _drawn(seed: int, attempt: int, backend: Backend, among: Collection[str]) -> Case:
    draft = Draft(seed * TRIES + attempt)
    draw = draft.choose
    config, first, usable = _templates(draft, backend, among)
    shapes = [draw.choice(SHAPES)]
    if draft.chance(0.3):
        shapes.append(draw.choice([shapes[0], draw.choice(SHAPES)]))
    for shape in shapes:
        draft.add_input(shape)
    planted: list[Planted] = []
    for step in range(draw.randint(2, 7)):
        if step and draft.chance(0.5):
            write_tied_head(draft) if among and draft.chance(0.2) else write_glue(draft)
            continue
        template = draw.choice(usable) if step else first
        misses = near_misses(template)
        miss = draw.choice(misses) if misses and draft.chance(0.25) else ""
        found = plant(draft, template, miss)
        planted += [found] if found else []
    made = [name for name in draft.unread if name.startswith("t")]
    outputs = made or draft.pool[-1:]
    free = draft.chance(0.2)
    return Case(
        seed,
        draft.source(outputs),
        draft.inputs_source,
        config,
        tuple(planted),
        free,
        draft.overwrites,
    )


def _templates(
    draft: Draft, backend: Backend, among: Collection[str]
) -> tuple[Config, Template, list[Template]]:
    """Return a config, the first template to write, and all that it lets match."""
    given = backend.recipe.patterns.templates
    usual = [each for each in given if is_writable(each)]
    if not among:
        first = draft.choose.choice(usual)
        of_mode = [each for each in usual if each.mode == first.mode]
        asked = {first.name, "matmul"}
        usable = [each for each in of_mode if not each.on_request or each.name in asked]
        return _config(draft, first), first, usable
    more = [each for each in given if is_writable(each, among)]
    first = draft.choose.choice(more)
    mode, on_request = draft.choose.choice(first.modes), draft.chance(0.3)
    if on_request:  # by a rule for its operators, where the default is another mode
        mode = draft.choose.choice(MODES[:2])
    usable = [each for each in (*usual, *more) if mode in each.modes and not each.on_request]
    config = Config(mode)
    if on_request:
        usable = [each for each in usable if each.anchor.ops != first.anchor.ops]
        usable += [first] * 2
        for target in sorted(map(str, first.anchor.targets)):
            config = config.op(target, first.mode)
    return config, first, usable


def _config(draft: Draft, template: Template) -> Config:
    config = Config(template.mode)
    if template.on_request:
        return config.op(template.anchor.ops[0].name, "static")
    if template.mode == "static" and draft.chance(0.2):
        return config.op("matmul", "static")
    return config


def _runs(case: Case) -> bool:
    try:
        model = case.model()
        with torch.no_grad():
            made = [model(*batch) for batch in case.batches()]
    except REFUSALS:
        return False
    leaves = [leaf for each in made for leaf in (each if isinstance(each, tuple) else (each,))]
    return all(bool(leaf.isfinite().all()) for leaf in leaves)
