"""A model written line by line; each line runs when written, so that shapes are known."""

from __future__ import annotations

import linecache
import random
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 1 << 14  # most elements of a tensor
REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError)


class Draft:
    """A model in the making: layers, inputs, and statements that name their results.

    Args:
        seed: Decides all choices and values.

    Attributes:
        choose: The source of random choices.
        pool: Names of tensors that later lines may read.
        overwrites: Whether a tensor in the pool is overwritten, so that its readers stay float.
    """

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.pool: list[str] = []
        self.overwrites = False
        self._seed = seed
        self._owner = nn.Module()
        self._values: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "self": self._owner}
        self._inputs: dict[str, str] = {}
        self._layers: list[str] = []
        self._pending: list[str] = []
        self._lines: list[str] = []
        self._read: set[str] = set()
        self._count = 0

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.choose.random() < probability

    def value(self, name: str) -> Tensor:
        """Return the current value of ``name``."""
        value: Tensor = eval(name, self._values)
        return value

    def add_input(self, shape: tuple[int, ...]) -> str:
        """Return the name of a new input of that shape."""
        name = f"x{len(self._inputs)}"
        self._inputs[name] = f"torch.randn({shape})"
        self._values[name] = torch.randn(shape)
        self.pool.append(name)
        return name

    def layer(self, text: str) -> str:
        """Return the name of a new module, parameter or buffer, which the next line may read."""
        name = f"self.n{self._number()}"
        line = f"{name} = {text}"
        exec(line, self._values)
        self._pending.append(line)
        return name

    def layer_line(self, statement: str) -> None:
        """Write a statement about the layers that the next line reads."""
        with torch.no_grad():
            exec(statement, self._values)
        self._pending.append(statement)

    def parameter(self, *shape: int, scale: float = 1.0, dtype: str = "") -> str:
        """Return the name of a new parameter."""
        made = f"torch.randn({', '.join(map(str, shape))}) * {scale:.3f}"
        return self.layer(f"nn.Parameter({f'({made}).to({dtype})' if dtype else made})")

    def buffer(self, text: str) -> str:
        """Return the name of a new buffer."""
        name = f"n{self._number()}"
        line = f"self.register_buffer('{name}', {text})"
        exec(line, self._values)
        self._pending.append(line)
        return f"self.{name}"

    def say(
        self, expression: str, *, under: str = "", pooled: bool = True, dead: bool = False
    ) -> str | None:
        """Write ``name = expression`` and return the name; None if it does not run.

        Args:
            expression: An expression in names of this draft.
            under: A ``with`` statement around it.
            pooled: Whether later lines may read it.
            dead: Whether nothing may read it.
        """
        name = f"t{self._number()}"
        indent = "    " if under else ""
        line = f"{name} = {expression}"
        text = f"{under}\n    {line}" if under else line
        if not self._run(text) or not self._fits(name):
            self._pending.clear()
            return None
        self._lines += [under, f"{indent}{line}"] if under else [line]
        self._keep("" if dead else expression)
        if pooled and not dead:
            self.pool.append(name)
        return name

    def say_all(self, expression: str, count: int) -> list[str]:
        """Write ``name, name, ... = expression`` and return the names; none if it does not run."""
        names = [f"t{self._number()}" for _ in range(count)]
        line = f"{', '.join(names)} = {expression}"
        if not self._run(line) or not all(map(self._fits, names)):
            self._pending.clear()
            return []
        self._lines.append(line)
        self._keep(expression)
        return names

    def change(self, statement: str) -> bool:
        """Write a statement that changes a tensor in place; return whether it runs."""
        if not self._run(statement):
            self._pending.clear()
            return False
        self._lines.append(statement)
        self.overwrites = True
        self._keep("")
        return True

    def owned(self, name: str) -> bool:
        """Whether only this call owns the memory of ``name``, and no elements overlap."""
        value = self.value(name)
        outside = [self._values[each] for each in self._inputs]
        outside += [*self._owner.parameters(), *self._owner.buffers()]
        memory = {each.untyped_storage().data_ptr() for each in outside}
        dense = all(
            step or size == 1 for step, size in zip(value.stride(), value.shape, strict=True)
        )
        return dense and value.untyped_storage().data_ptr() not in memory

    def pick(self, *ranks: int, dtype: torch.dtype = torch.float32) -> str | None:
        """Return a tensor of the pool, later ones more often; None if no tensor fits."""
        found = [
            name
            for name in self.pool
            if (not ranks or self.value(name).dim() in ranks) and self.value(name).dtype == dtype
        ]
        if not found:
            return None
        return found[-1] if self.chance(0.5) else self.choose.choice(found)

    def same_shape(self, name: str) -> list[str]:
        """Return the other tensors of the pool that have the shape of ``name``."""
        like = self.value(name)
        return [
            each
            for each in self.pool
            if each != name
            and self.value(each).shape == like.shape
            and self.value(each).dtype == like.dtype
        ]

    def modules(self) -> list[str]:
        """Return the names of the modules that were written."""
        names = [line.partition(" = ")[0] for line in self._layers if " = nn." in line]
        return [name for name in names if isinstance(eval(name, self._values), nn.Module)]

    def matrices(self) -> list[str]:
        """Return the names of the stored float32 matrices that were written."""
        written = {line.partition(" = ")[0] for line in self._layers}
        return [
            f"self.{path}"
            for path, each in self._owner.named_parameters()
            if each.dim() == 2
            and each.dtype == torch.float32
            and f"self.{path.partition('.')[0]}" in written
            and not re.search(r"\.\d", path)  # inside of a sequence, which is no name
        ]

    @property
    def unread(self) -> list[str]:
        """The tensors of the pool that nothing reads."""
        return [name for name in self.pool if name not in self._read]

    def source(self, outputs: list[str]) -> str:
        """Return the model as a program that returns ``outputs``."""
        returned = ", ".join(outputs)
        return "\n".join(
            [
                "class Model(nn.Module):",
                "    def __init__(self):",
                "        super().__init__()",
                *(f"        {line}" for line in self._layers),
                "",
                f"    def forward(self, {', '.join(self._inputs)}):",
                *(f"        {line}" for line in self._lines),
                f"        return {returned if len(outputs) == 1 else f'({returned})'}",
            ]
        )

    @property
    def inputs_source(self) -> str:
        """The inputs, as the text of a tuple."""
        return f"({''.join(f'{made}, ' for made in self._inputs.values())})"

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _run(self, text: str) -> bool:
        try:
            with torch.no_grad():
                exec(text, self._values)
        except REFUSALS:
            return False
        return True

    def _fits(self, name: str) -> bool:
        value = self._values[name]
        return (
            isinstance(value, Tensor)
            and 0 < value.numel() <= LARGEST
            and bool(value.isfinite().all())
            and (not value.is_floating_point() or float(value.abs().max()) < 1e3)
        )

    def _keep(self, text: str) -> None:
        self._layers += self._pending
        self._pending.clear()
        words = text.replace("(", " ").replace(")", " ").replace(",", " ").replace(".", " ")
        words = words.replace("[", " ").replace("]", " ").replace("=", " ")
        self._read |= set(words.split())


def run_source(source: str, seed: int) -> dict[str, Any]:
    """Run the text of a program and return its names; tracebacks show its lines."""
    file = f"<fuzz {seed}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "__name__": f"fuzz_{seed}"}
    exec(compile(source, file, "exec"), names)
    return names
