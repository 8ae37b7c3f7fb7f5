"""A decision that spoils a result, and what to do without it."""

from __future__ import annotations

from dataclasses import dataclass

from quantfx.bisection.trials import Verdict
from quantfx.passes.config.config import Config
from quantfx.passes.pipeline.permits import Permit

# The pipeline that holds a pass, where the pass is not one of matching or lowering.
_DROPPED_FROM = {
    "compute-in-float32": "prepare_pipeline",
    "fold-constants": "prepare_pipeline",
    "fold-batch-norm": "prepare_pipeline",
    "fold-scales": "prepare_pipeline",
    "share": "",
    "share-tied-tables": "convert_pipeline",
    "store-in-half": "convert_pipeline",
    "hoist-quantize": "lower_pipeline",
    "form-regions": "lower_pipeline",
    "merge-equal": "lower_pipeline",
    "drop-pool-copies": "inductor",
    "fuse-sums": "inductor",
}
_MEANS = {
    "share": "an observer that others have as well",
    "lower": "the kernel of this site",
    "form-regions": "the step of a prepared plan",
}


@dataclass(frozen=True)
class Culprit:
    """The first decision that turned a good result bad.

    Attributes:
        permit: The decision: pass, template, site.
        verdict: What the check said with it, and with all that was decided before it.
        needs: Other decisions in the smallest set that still fails, but for those of the same site
            and whole passes: without one of these the decision alone does no harm.
    """

    permit: Permit
    verdict: Verdict
    needs: tuple[Permit, ...] = ()

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
        """Name of the node; empty for a whole pass."""
        return self.permit.site.rpartition("/")[2].partition(".")[0]

    @property
    def config(self) -> str:
        """The lines of a config, as TOML, that keep the site float; empty for a rewrite."""
        if not self.node or self.permit.by in _DROPPED_FROM:
            return ""
        return Config().call(self.node, "float").to_toml()

    @property
    def remedy(self) -> str:
        """How to do without it."""
        by, place = self.permit.by, _DROPPED_FROM.get(self.permit.by)
        if place == "inductor":
            return f"with torch._inductor.config.patch(disabled_passes='{by}'): result.compile()"
        if place:
            return f"dataclasses.replace(backend, {place}=backend.{place}.without('{by}'))"
        if by == "share":
            return f"config.tensor('{self.permit.site}', 'float') keeps this input float"
        return f"config.call('{self.node}', 'float') keeps this site float"
