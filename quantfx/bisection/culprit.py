"""A decision that spoils a result, and how to do without it."""

from __future__ import annotations

from dataclasses import dataclass

from quantfx.bisection.trials import Verdict
from quantfx.passes.config.config import Config
from quantfx.passes.pipeline.permits import Permit

# Places other than a backend's pipelines: passes inside Inductor, and whatever a check runs.
INDUCTOR = "inductor"
ELSEWHERE = "elsewhere"

_MEANS = {
    "share": "an observer that others have as well",
    "lower": "the kernel of this site",
    "form-regions": "the step of a prepared plan",
}


@dataclass(frozen=True)
class Culprit:
    """The first decision that turned a good result bad.

    Attributes:
        permit: The decision: pass, template and site.
        verdict: What the check said with this decision and all earlier ones permitted.
        place: The backend's pipeline that can leave the pass out, such as ``prepare_pipeline``, or
            ``inductor`` or ``elsewhere``; empty if a config decides.
        needs: The other decisions in the smallest set that still fails, less those of the same site
            and whole passes: without any one of them the decision does no harm.
        is_smallest: Whether ``needs`` is that set; else it is what remained when the trials ran
            out.
    """

    permit: Permit
    verdict: Verdict
    place: str
    needs: tuple[Permit, ...] = ()
    is_smallest: bool = True

    @property
    def means(self) -> str:
        """What the decision is about, in words."""
        by = self.permit.by
        if by in _MEANS:
            return _MEANS[by]
        if by.startswith(("annotate-", "propagate")):
            return "this match: its specs, its observers and its conversion to int8"
        return "this rewrite" if self.permit.site else "this pass"

    @property
    def node(self) -> str:
        """The node, with its graph's path if nested; empty for a whole pass."""
        return self.permit.node

    def keep_float(self, config: Config) -> Config:
        """Return ``config`` with a rule that keeps the site float; no rule for a rewrite."""
        is_call = self.node and not self.place and self.permit.by != "share"
        return config.call(self.node, "float") if is_call else config

    @property
    def config(self) -> str:
        """A config as TOML that keeps the site float; empty for a rewrite."""
        return toml_of(self.keep_float(Config()))

    @property
    def remedy(self) -> str:
        """How to do without the decision."""
        by, place = self.permit.by, self.place
        if place == ELSEWHERE:
            return f"leave '{by}' out of the pipeline that the check runs"
        if place == INDUCTOR:
            return f"with torch._inductor.config.patch(disabled_passes='{by}'): result.compile()"
        if place:
            return f"dataclasses.replace(backend, {place}=backend.{place}.without('{by}'))"
        if by == "share":
            return f"config.tensor('{self.permit.site}', 'float') keeps this input float"
        return f"config.call('{self.node}', 'float') keeps this site float"


def toml_of(config: Config) -> str:
    """Return a config as TOML; empty if it has no rules."""
    return config.to_toml() if config.rules else ""
