"""What lowering a q/dq graph yields, and what must hold of it before anything runs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

from torch.fx import GraphModule

from quantfx.backends.checks import targets
from quantfx.passes.errors import ContractError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.lower.keep_packed import KeepPacked
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.report.outcome import SiteOutcome, missed_sites
from quantfx.patterns.errors import QuantfxError, QuantfxWarning

_SHOWN = 5
BOUNDED = "Quantize for it with target='host'"
# For running a lowered module as it is: no compiler folds the packing of its weights.
EAGER = Pipeline((KeepPacked(),), name="eager")


@dataclass(frozen=True)
class Lowering:
    """A lowered module and what became of every planned site.

    Attributes:
        module: Calls of kernels in the place of q/dq subgraphs.
        sites: Every planned site with its kernel or the reason why there is none.
        saturating: Sites whose integer sums can pass 16 bits on this CPU, which adds them there.
        not_here: Why the module cannot run on this machine; empty if it can.
    """

    module: GraphModule
    sites: tuple[SiteOutcome, ...]
    saturating: tuple[Site, ...]
    not_here: str = ""

    @cached_property
    def eager(self) -> GraphModule:
        """The module with each weight packed once; as it is where it cannot run."""
        return self.module if self.not_here else EAGER.run(self.module)

    def require(self, *, strict: bool = True, cure: str = BOUNDED) -> None:
        """Check that every planned site has its kernel and that the kernels compute right here.

        Args:
            strict: Raise; else only warn.
            cure: How to quantize so that sums do not saturate here, for the message.

        Raises:
            ContractError: a site saturates on this CPU, or missed its kernel.
        """
        self.require_range(strict=strict, cure=cure)
        if short := missed_sites(self.sites):
            complain(_describe_missed(short), strict=strict)

    def require_range(self, *, strict: bool = True, cure: str = BOUNDED) -> None:
        """Check that no integer sum can saturate on this CPU, with the actual weights.

        Raises:
            ContractError: names the sites where one can, if ``strict``.
        """
        if self.saturating:
            complain(self._saturates(cure), strict=strict)

    def _saturates(self, cure: str) -> str:
        return (
            f"{len(self.saturating)} site(s) would saturate on this CPU ({targets.host().name}, no "
            f"VNNI) and be silently wrong: {_join(list(map(str, self.saturating)))}. {cure}, "
            "or accept it with strict=False"
        )


def require_compiled(sites: tuple[SiteOutcome, ...], *, strict: bool) -> None:
    """Raise, or warn unless ``strict``, where the compiled module misses a kernel.

    Raises:
        ContractError: names the sites.
    """
    lost = [site for site in missed_sites(sites) if site.kernel]
    if lost:
        complain(_describe_missed(lost), strict=strict)


def complain(message: str, *, strict: bool, kind: type[QuantfxError] = ContractError) -> None:
    """Raise an error of that kind; unless ``strict``, warn instead."""
    if strict:
        raise kind(message)
    warnings.warn(message, QuantfxWarning, stacklevel=4)


def _describe_missed(short: list[SiteOutcome]) -> str:
    lines = [f"{site.site} ({site.kind}): {site.reason}" for site in short]
    return (
        f"{len(short)} planned site(s) did not reach their int8 kernel: {_join(lines)}. Leave "
        "them float with a config or backend.without_templates(...), or accept it with strict=False"
    )


def _join(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
