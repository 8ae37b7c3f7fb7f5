"""The outcome of lowering a q/dq graph, and the checks on it before anything runs."""

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
from quantfx.patterns.errors import QuantfxError

_SHOWN = 5
BOUNDED = "Quantize for it with target='host'"
# For running a lowered module without a compiler, which would fold the packing of weights.
EAGER = Pipeline((KeepPacked(),), name="eager")


@dataclass(frozen=True)
class Lowering:
    """A lowered module and the outcome of every planned site.

    Attributes:
        module: The graph with kernel calls in place of q/dq subgraphs.
        sites: Every planned site with its kernel or the reason why there is none.
        saturating: Sites whose integer sums can exceed 16 bits, in which this CPU adds them.
        not_here: Why the module cannot run on this machine; empty if it can.
    """

    module: GraphModule
    sites: tuple[SiteOutcome, ...]
    saturating: tuple[Site, ...]
    not_here: str = ""

    @cached_property
    def eager(self) -> GraphModule:
        """The module with each weight packed once; unchanged if it cannot run here."""
        return self.module if self.not_here else EAGER.run(self.module)

    def require(self, *, strict: bool = True, cure: str = BOUNDED) -> None:
        """Check that every planned site has its kernel, and that kernels compute correctly here.

        Args:
            strict: Raise; else only warn.
            cure: How to quantize without saturation here, for the message.

        Raises:
            ContractError: a site saturates on this CPU, or missed its kernel.
        """
        self.require_range(strict=strict, cure=cure)
        if short := missed_sites(self.sites):
            complain(_describe_missed(short), strict=strict)

    def require_range(self, *, strict: bool = True, cure: str = BOUNDED) -> None:
        """Check that no integer sum can saturate on this CPU, with the actual weights.

        Raises:
            ContractError: ``strict``, and a sum can saturate; names the sites.
        """
        if self.saturating:
            complain(self._saturates(cure), strict=strict)

    def _saturates(self, cure: str) -> ContractError:
        return ContractError(
            f"{len(self.saturating)} site(s) would saturate on this CPU ({targets.host().name}, no "
            f"VNNI) and be silently wrong: {_join(list(map(str, self.saturating)))}.",
            rule="saturates",
            site=str(self.saturating[0]),
            fix=f"{cure[0].lower()}{cure[1:]}, or accept it with strict=False",
        )


def require_compiled(sites: tuple[SiteOutcome, ...], *, strict: bool) -> None:
    """Raise, or warn unless ``strict``, if the compiled module misses a kernel.

    Raises:
        ContractError: names the sites.
    """
    lost = [site for site in missed_sites(sites) if site.kernel]
    if lost:
        complain(_describe_missed(lost), strict=strict)


def complain(error: QuantfxError, *, strict: bool) -> None:
    """Raise ``error``; unless ``strict``, warn with its text instead."""
    if strict:
        raise error
    warnings.warn(error.warning(), stacklevel=4)


def _describe_missed(short: list[SiteOutcome]) -> ContractError:
    lines = [f"{site.site} ({site.kind}): {site.reason}" for site in short]
    return ContractError(
        f"{len(short)} planned site(s) did not reach their int8 kernel: {_join(lines)}.",
        rule="no-kernel",
        site=str(short[0].site),
        fix=(
            "leave them float with a config or backend.without_templates(...), or accept it with "
            "strict=False"
        ),
    )


def _join(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
