"""The steps of a plan as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.runtime.values import Value

Combine = Literal["first", "add", "sub", "mul", "div"]


class PostOp(NamedTuple):
    """An operation on a float result before it is stored; ``name`` is in ``interface.POST_OPS``."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


@dataclass(eq=False, kw_only=True)
class Step:
    """A step of a plan.

    Attributes:
        result: The value that it writes.
        low: Least integer of the result.
        high: Largest integer of the result.
        post: Post-ops on the float result, in order.
        nodes: The nodes of the graph that it computes, in graph order.
        output: The node whose value is ``result``.
    """

    kernel: ClassVar[str]

    result: Value
    low: int = 0
    high: int = 255
    post: tuple[PostOp, ...] = ()
    nodes: tuple[Node, ...] = ()
    output: Node | None = None

    def reads(self) -> Iterator[Value]:
        """Yield every value that it reads, in the order of the fields."""
        for name, value in vars(self).items():
            if isinstance(value, Value) and name != "result":
                yield value


@dataclass(eq=False, kw_only=True)
class Source(Step):
    """A step with a source tensor."""

    source: Value


@dataclass(eq=False, kw_only=True)
class Accumulate(Source):
    """A product with a weight, to whose sum another tensor may be added.

    Attributes:
        summand: The tensor to add at ``sum`` in ``post``. The result takes its memory if nothing
            reads it afterwards, and otherwise starts as its copy.
        scales: Scales of the weight, float32, ``(channels,)`` or ``(1,)``; None for a float weight.
        bias: float32 ``(channels,)``.
        implementation: Number of oneDNN's implementations to skip, if it has as many.
        threads: Number of threads that share the work; 0 for the plan's number.
    """

    summand: Value | None = None
    scales: Tensor | None = None
    bias: Tensor | None = None
    implementation: int = 0
    threads: int = 0


@dataclass(eq=False, kw_only=True)
class Convolution(Accumulate):
    """A convolution; ``weight`` is in torch's layout."""

    kernel = "direct.convolution"

    weight: Tensor
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding_low: tuple[int, ...]
    padding_high: tuple[int, ...]
    groups: int

    @property
    def constant(self) -> Tensor:
        """The weight, which the library identifies by address."""
        return self.weight


@dataclass(eq=False, kw_only=True)
class MatMul(Accumulate):
    """``source @ weight``; a constant weight with scales is ``(K, N)`` and packed."""

    kernel = "direct.matmul"

    weight: Value

    @property
    def constant(self) -> Tensor | None:
        """The weight, if it is packed."""
        return self.weight.buffer.constant if self.packs else None

    @property
    def packs(self) -> bool:
        """Whether the weight is a layer's: packed once, for all calls."""
        return self.scales is not None


@dataclass(eq=False, kw_only=True)
class Pointwise(Source):
    """``combine(source, other)`` element by element, or the source alone."""

    kernel = "direct.pointwise"

    combine: Combine = "first"
    other: Value | None = None


@dataclass(eq=False, kw_only=True)
class Lookup(Source):
    """Maps integers through a table of 256 bytes; without a table, a copy of any dtype."""

    kernel = "direct.lookup"

    table: bytes | None = None


@dataclass(eq=False, kw_only=True)
class Fill(Step):
    """One integer everywhere."""

    kernel = "direct.fill"

    value: int


@dataclass(eq=False, kw_only=True)
class Pool(Source):
    """The largest or the average value of windows."""

    kernel = "direct.pool"

    average: bool
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    counts_padding: bool = True
    divisor: int = 0


@dataclass(eq=False, kw_only=True)
class Interpolate(Source):
    """Linear interpolation in all dimensions behind batch and channels.

    Attributes:
        tables: For each dimension ``(size of the result, 3)`` float32: the places of two values of
            the source, and the weight of the second; the first has the rest of 1.
    """

    kernel: ClassVar[str] = "direct.interpolate"

    tables: tuple[Tensor, ...]


@dataclass(eq=False, kw_only=True)
class LayerNorm(Source):
    """A layer norm over the last dimension.

    Attributes:
        centered: Whether the mean is subtracted; a norm by the root of the mean square keeps it.
    """

    kernel = "direct.layer_norm"

    weight: Tensor | None
    bias: Tensor | None
    epsilon: float
    centered: bool = True


@dataclass(eq=False, kw_only=True)
class Softmax(Source):
    """A softmax over the last dimension.

    Attributes:
        causal: Whether the i-th row of each matrix covers only its first i + 1 values.
        empty_is_zero: Whether rows of only -inf become zeros.
    """

    kernel = "direct.softmax"

    causal: bool = False
    empty_is_zero: bool = False


@dataclass(eq=False, kw_only=True)
class Attention(Source):
    """``softmax(source @ key + masks) @ value`` of integers, without a matrix of scores in memory.

    Attributes:
        key: ``(..., width, length)``.
        value: ``(..., length, width of the result)``.
        mask: Summand of the scores, float32, broadcast to ``(..., rows, length)``.
        second_mask: One more.
        empty_is_zero: Whether rows of only -inf become zeros.
        scores: Post-ops on the scores, in order.
        weights: Scale, zero point, least and largest integer of the softmax's result.
    """

    kernel = "direct.attention"

    key: Value
    value: Value
    mask: Value | None = None
    second_mask: Value | None = None
    empty_is_zero: bool
    scores: tuple[PostOp, ...]
    weights: tuple[float, int, int, int]


@dataclass(eq=False, kw_only=True)
class View(Source):
    """A view of the same memory: nothing is computed."""

    kernel = "direct.view"


@dataclass(eq=False)
class Program:
    """Steps in order.

    Attributes:
        steps: Steps that compute.
        views: Steps that only view memory, for the report.
        outputs: The layout of each output that the caller gets.
        values: The values of nodes, for inspection.
    """

    steps: list[Step] = field(default_factory=list[Step])
    views: list[View] = field(default_factory=list[View])
    outputs: list[Tensor] = field(default_factory=list[Tensor])
    values: dict[Node, Value] = field(default_factory=dict[Node, Value])

    def accounts(self) -> Iterator[Step]:
        """Yield every step that stands for nodes of the graph, views included."""
        yield from (step for step in (*self.steps, *self.views) if step.output is not None)
