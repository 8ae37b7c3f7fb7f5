"""Code between templates in models: views, arithmetic, normalization, other spellings."""

from __future__ import annotations

import math
from collections.abc import Callable

from quantfx.tools.fuzz.draft import Draft
from quantfx.tools.fuzz.plant import fitting, layer_of, sibling

# Expressions of one tensor of any shape.
ANYWHERE = (
    "{x}.relu()", "{x}.sigmoid()", "{x}.tanh()", "-{x}", "{x} * 0.5", "{x} + 1.0", "{x}.abs()",
    "{x}.clamp(-1.0, 1.5)", "F.dropout({x}, 0.5, False)", "{x}.clone()", "{x}.contiguous()",
    "F.softmax({x}, -1)", "{x}.detach()", "{x}.to(torch.float32)", "torch.where({x} > 0, {x}, 0.1)",
    "{x} * {x}.sigmoid()", "{x} * F.relu6({x} + 3.0) / 6.0", "F.hardswish({x})", "F.silu({x})",
    "F.gelu({x})", "F.relu6({x})", "F.layer_norm({x}, {x}.shape[-1:])", "{x} / ({x}.abs() + 1.0)",
    "{x} - {x}.mean(-1, keepdim=True)", "{x} + {x}.amax(-1, keepdim=True)", "{x}.double().float()",
    "{x}.half().float()", "torch.multiply({x}, 0.7)", "{x}.view_as({x})",
)  # fmt: skip
# Expressions of one tensor, by its number of dimensions.
BY_RANK = {
    2: (
        "{x}.t().contiguous().t()", "{x}.unsqueeze(1)", "{x}[:, ::2]", "{x}.chunk(2, 1)[0]",
        "{x}.unsqueeze(1).expand(-1, 3, -1)", "torch.flip({x}, [1])", "{x}[:, None, :, None]",
    ),
    3: (
        "{x}.transpose(1, 2)", "{x}.mean(1)", "{x}[:, 0]", "{x}.flatten(1)", "{x}.permute(0, 2, 1)",
        "{x}.unsqueeze(2)", "{x} @ {x}.transpose(1, 2)", "torch.bmm({x}, {x}.mT)",
        "F.avg_pool1d({x}, 1)",
    ),
    4: (
        "{x}.mean((2, 3))", "{x}.flatten(1)", "{x}.flatten(2)", "{x}.flatten(2).transpose(1, 2)",
        "F.max_pool2d({x}, 2)", "F.avg_pool2d({x}, 2)", "F.adaptive_avg_pool2d({x}, 1)",
        "F.interpolate({x}, scale_factor=2.0)", "F.pad({x}, (1, 1, 1, 1))", "{x}[:, :, ::2]",
        "{x}.permute(0, 2, 3, 1)", "{x}[:, :, 0, 0]", "{x}.chunk(2, 1)[0]", "torch.flip({x}, [2])",
        "{x}.reshape({x}.shape[0], -1)", "{x}.view({x}.shape[0], {x}.shape[1], -1)",
        "F.max_pool2d(F.relu({x}), 3, 1, 1)", "{x}.to(memory_format=torch.channels_last)",
        "{x}.narrow(1, 0, 1)", "{x}.unsqueeze(2)", "{x}.squeeze(3)",
    ),
    5: ("{x}.mean((2, 3, 4))", "{x}.flatten(3)", "{x}[:, :, 0]"),
}  # fmt: skip
# Expressions of two tensors of one shape.
OF_TWO = (
    "{x} + {y}", "{x} * {y}", "{x} - {y}", "torch.multiply({x}, {y})", "F.relu({x} + {y})",
    "torch.cat([{x}, {y}], 1)", "torch.concat([{x}, {y}], -1)", "torch.add({x}, {y}, alpha=2)",
    "torch.stack([{x}, {y}], 1).sum(1)",
)  # fmt: skip
# Statements that change x, whose memory belongs to the call.
IN_PLACE = (
    "{x}.relu_()", "{x}.mul_(0.5)", "{x}.add_(1.0)", "{x}[:, :1].add_(1.0)", "{x}[0].mul_(0.5)",
)  # fmt: skip
# Views of x, which see later writes to it.
VIEWS = (
    "{x}[:, :1]", "{x}[0]", "{x}.transpose(0, 1)", "{x}.unsqueeze(1)", "{x}.view(-1)",
    "{x}.detach()", "{x}.flatten(0, 1)",
)  # fmt: skip


def one_tensor(draft: Draft) -> None:
    """Write expressions of one tensor, sometimes one that nothing reads."""
    for _ in range(draft.choose.choice([1, 2, 3])):
        x = draft.pick()
        if x is not None:
            ways = ANYWHERE if draft.chance(0.5) else BY_RANK.get(draft.value(x).dim(), ANYWHERE)
            draft.say(draft.choose.choice(ways).format(x=x), dead=draft.chance(0.05))


def two_tensors(draft: Draft) -> None:
    """Write a sum, product or concatenation of two tensors of one shape, often of two layers."""
    x = draft.pick()
    if x is None or draft.value(x).dim() < 2:
        return
    layers = draft.chance(0.5)
    one = layer_of(draft, x) if layers else x
    other = layer_of(draft, x) if layers else sibling(draft, x)
    if one is not None and other is not None:
        draft.say(draft.choose.choice(OF_TWO).format(x=one, y=other))


def in_place(draft: Draft) -> None:
    """Write a statement that changes a tensor, sometimes one with a view."""
    x = draft.pick()
    if x is not None and not draft.owned(x):
        x = draft.say(f"{x} * 2.0")
    if x is None or draft.value(x).dim() < 2:
        return
    view = draft.say(draft.choose.choice(VIEWS).format(x=x)) if draft.chance(0.5) else None
    draft.change(draft.choose.choice(IN_PLACE).format(x=x))
    if view is not None:
        draft.say(f"{view}.sigmoid()")


def between_layers(draft: Draft) -> None:
    """Write an operator that passes int8 on after a layer, a view, and a layer that reads the view.

    What is behind a pool is observed anew, so that the next layer's scale is another.
    """
    x = fitting(draft, (4,))
    x = layer_of(draft, x) if x is not None else None
    if x is None:
        return
    ways = ("F.max_pool2d({x}, 2)", "torch.cat([{x}, {x}.relu()], 1)", "F.max_pool2d({x}, 3, 1, 1)")
    moved = draft.say(draft.choose.choice(ways).format(x=x))
    views = ("{x}.view({x}.shape[0], -1)", "{x}.permute(0, 2, 3, 1)", "{x}.unsqueeze(1)")
    view = draft.say(draft.choose.choice(views).format(x=moved)) if moved else None
    if view is not None:
        made = draft.layer(f"nn.Linear({draft.value(view).shape[-1]}, 4)")
        draft.say(f"{made}({view})")


def layer(draft: Draft) -> None:
    """Write a layer as modules spell it, sometimes with a norm, factor or activation after it."""
    dims = draft.choose.choice([0, 1, 2, 2, 3])
    x = fitting(draft, (dims + 2,) if dims else (2, 3, 4))
    if x is None:
        return
    columns = draft.value(x).shape[1 if dims else -1]
    out = draft.choose.choice([4, 6, columns])
    if dims:
        kernel = min(3, *draft.value(x).shape[2:])
        made = draft.layer(f"nn.Conv{dims}d({columns}, {out}, {kernel}, padding={kernel // 2})")
    else:
        made = draft.layer(f"nn.Linear({columns}, {out}, bias={draft.chance(0.7)})")
    text = f"{made}({x})"
    behind = draft.choose.choice(["", "norm", "factor", "summand", "twice"])
    if behind == "norm" and (dims or draft.value(x).dim() == 2):
        norm = draft.layer(
            f"nn.BatchNorm{dims or 1}d({out}, eps={draft.choose.choice([1e-5, 0.1])})"
        )
        draft.layer_line(f"{norm}.running_mean.normal_(std=0.3)")
        draft.layer_line(f"{norm}.running_var.uniform_(0.05, 1.5)")
        draft.layer_line(f"nn.init.uniform_({norm}.weight, 0.5, 1.5)")
        draft.layer_line(f"nn.init.normal_({norm}.bias)")
        text = f"{norm}({text})"
    elif behind in ("factor", "summand"):
        shape = (out, *[1] * dims)
        other = draft.parameter(*shape)
        text = f"{text} {'*' if behind == 'factor' else '+'} {other}"
    elif behind == "twice" and out == columns:
        text = f"{made}(F.relu({text}))"
    draft.say(draft.choose.choice(["{}", "{}", "F.relu({})", "F.hardswish({})"]).format(text))


def product(draft: Draft) -> None:
    """Write a product by a stored matrix in one of its spellings."""
    x = fitting(draft, (2, 2, 3))
    if x is None:
        return
    columns, out = draft.value(x).shape[-1], draft.choose.choice([3, 8])
    w = draft.parameter(columns, out, scale=1 / math.sqrt(columns))
    b = draft.parameter(out)
    ways = [
        "{x} @ {w}",
        "torch.matmul({x}, {w})",
        "F.linear({x}, {w}.t())",
        "F.linear({x}, {w}.t() * 2.0)",
        f"F.linear({{x}}, {{w}}.t() * 2.0, {b}.abs())",
    ]
    if draft.value(x).dim() == 2:
        ways += [
            "torch.mm({x}, {w})",
            f"torch.addmm({b}, {{x}}, {{w}})",
            f"torch.addmm({b}, {{x}}, {{w}}, beta=0.5, alpha=2.0)",
            "torch.einsum('bi,io->bo', {x}, {w})",
            "({w}.t() @ {x}.t()).t()",
        ]
    else:
        ways += ["torch.einsum('bni,io->bno', {x}, {w})", "torch.tensordot({x}, {w}, 1)"]
    draft.say(draft.choose.choice(ways).format(x=x, w=w))


def other_layer(draft: Draft) -> None:
    """Write a layer without a template, or a norm by itself."""
    x = fitting(draft, (4,))
    if x is None:
        return
    channels = draft.value(x).shape[1]
    ways = (
        f"nn.ConvTranspose2d({channels}, 4, 2, stride=2)",
        f"nn.BatchNorm2d({channels})",
        f"nn.GroupNorm(1, {channels})",
        f"nn.PReLU({channels})",
        "nn.Dropout(0.3)",
        "nn.Flatten(2)",
    )
    draft.say(f"{draft.layer(draft.choose.choice(ways))}({x})")


def reuse(draft: Draft) -> None:
    """Call a layer again, on another fitting tensor."""
    modules, x = draft.modules(), draft.pick()
    if modules and x is not None:
        draft.say(f"{draft.choose.choice(modules)}({x})")


def nested(draft: Draft) -> None:
    """Write a region without gradients, or a branch on data with layers on both sides."""
    x = fitting(draft, (2,))
    if x is None:
        return
    columns = draft.value(x).shape[-1]
    if draft.chance(0.6):
        made = draft.layer(f"nn.Linear({columns}, 5)")
        draft.say(f"F.relu({made}({x}))", under="with torch.no_grad():")
        return
    sides = [
        draft.layer(f"nn.Sequential(nn.Linear({columns}, 5), nn.{kind}())")
        for kind in ("ReLU", "Tanh")
    ]
    draft.say(f"torch.cond(x0.flatten()[0] > 0, {sides[0]}, {sides[1]}, ({x},))")


GLUE: tuple[tuple[Callable[[Draft], None], int], ...] = (
    (one_tensor, 6),
    (two_tensors, 3),
    (in_place, 1),
    (between_layers, 1),
    (layer, 4),
    (product, 2),
    (other_layer, 1),
    (reuse, 1),
    (nested, 1),
)


def write_glue(draft: Draft) -> None:
    """Write something outside of templates, or in another spelling."""
    [write] = draft.choose.choices([each for each, _ in GLUE], [weight for _, weight in GLUE])
    write(draft)
