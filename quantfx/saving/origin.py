"""The origin of a result: what made it, kept when it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from quantfx.backends.backend import Backend
from quantfx.saving.file import version


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The versions and pipelines that quantized a model.

    Attributes:
        quantfx: Version of quantfx.
        torch: Version of torch.
        target: Instruction set that it was quantized for, or ``any``.
        pipelines: Text of the prepare, convert and lower pipelines.
        fingerprints: Hash of each, with all options, the patterns, the specs and the config.
    """

    quantfx: str
    torch: str
    target: str
    pipelines: Mapping[str, str]
    fingerprints: Mapping[str, str]

    @staticmethod
    def of(backend: Backend) -> Origin:
        """Return the origin of results that ``backend`` makes in this process."""
        pipelines = {
            "prepare": backend.prepare_pipeline,
            "convert": backend.convert_pipeline,
            "lower": backend.lower_pipeline,
        }
        return Origin(
            quantfx=version(),
            torch=torch.__version__,
            target=backend.target_name,
            pipelines={name: str(pipeline) for name, pipeline in pipelines.items()},
            fingerprints={name: p.fingerprint(backend.context) for name, p in pipelines.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the origin as plain data."""
        return {**vars(self)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Origin:
        """Return the origin from the plain data of ``to_dict``."""
        return Origin(**data)
