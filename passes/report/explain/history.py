"""What passes did to a name: what it became, and what went into it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from quantfx.passes.pipeline.known_passes import own_passes
from quantfx.passes.report.explain.explanation import HistoryStep
from quantfx.passes.report.explain.trail import Loss, Trail


def steps_forward(trail: Trail, site: str) -> tuple[HistoryStep, ...]:
    """Return what a vanished name became, step by step, up to an existing name."""
    steps: list[HistoryStep] = []
    when = -1
    while (loss := next((each for each in trail.lost[site] if each.when > when), None)) is not None:
        steps.append(_step_of_loss(trail, site, loss))
        when, site = loss.when, loss.vanished.became
        if not site:
            break
    return tuple(steps)


def end_of(steps: tuple[HistoryStep, ...]) -> str:
    """Return the site in place of a vanished name; empty if there is none."""
    return steps[-1].other if steps else ""


def steps_back(
    trail: Trail, site: str, *, made_by: str, kind: str, reason: str
) -> tuple[HistoryStep, ...]:
    """Return what went into an existing node, and the remarks of passes about it.

    Args:
        trail: The records of passes.
        site: The node.
        made_by: Pass that made it; empty for a node of the exported graph.
        kind: ``operator`` or ``constant``: only absorbed names of this kind are listed.
        reason: Why it stays float; not repeated, since it is shown elsewhere.
    """
    found = [
        (loss.when, _step_of_gain(loss, made_by))
        for loss in _gains(trail, site, kind, made_by, len(trail.passes))
    ]
    if made_by and not any(step.what == "made" for _, step in found):
        when = trail.passes.index(made_by) if made_by in trail.passes else -1
        text = _with_rule("a pass put it in", made_by)
        found.append((when, HistoryStep(by=made_by, what="made", other="", text=text)))
    said = {failed for _, tried in trail.tried[site] for _, failed in tried.tries} | {reason}
    for when, by, remark in trail.told[site]:
        if remark.message not in said:
            # The report has no column for the pass, so some remarks begin with its name.
            text = remark.message.removeprefix(f"{by}: ")
            found.append((when, HistoryStep(by=by, what="said", other="", text=text)))
    return tuple(step for _, step in sorted(found, key=lambda each: each[0]))


def _gains(trail: Trail, site: str, kind: str, made_by: str, before: int) -> Iterator[Loss]:
    for loss in trail.absorbed[site]:
        if loss.when < before and loss.vanished.kind == kind:
            inner = loss.vanished
            name = f"{inner.graph}/{inner.node}" if inner.graph else inner.node
            yield from _gains(trail, name, kind, inner.made_by, loss.when)
            if not inner.made_by or loss.by == made_by:
                yield loss


def _step_of_loss(trail: Trail, site: str, loss: Loss) -> HistoryStep:
    became = loss.vanished.became
    said = [each.remark.message for each in trail.told[site] if each.when == loss.when]
    text = f"{became} stands in its place" if became else "nothing read it any more"
    told = f"{text}, {'; '.join(said)}" if said else text
    return HistoryStep(
        by=loss.by,
        what="became" if became else "removed",
        other=became,
        text=_with_rule(told, loss.by),
    )


def _step_of_gain(loss: Loss, made_by: str) -> HistoryStep:
    gone = loss.vanished
    where = f", {gone.module}" if gone.module else ""
    name = f"{gone.node} ({gone.op}{where})"
    if loss.by == made_by:
        text, what = f"it was written in place of {name}", "made"
    else:
        text, what = f"it also stands in place of {name}", "absorbed"
    return HistoryStep(
        by=loss.by,
        what="made" if what == "made" else "absorbed",
        other=gone.node,
        text=_with_rule(text, loss.by),
    )


def _with_rule(text: str, by: str) -> str:
    rule = rules().get(by, "")
    return f"{text}. {rule}" if rule else text


@cache
def rules() -> dict[str, str]:
    """Return the first sentence of the docstring of each pass of quantfx, by name."""
    return {
        name: " ".join((kind.__doc__ or "").partition("\n\n")[0].split()).replace("``", "`")
        for kind in own_passes()
        for name in kind.names()
    }
