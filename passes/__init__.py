"""Passes on graphs, and what you need to write your own outside of quantfx.

A pass is a frozen dataclass, usually a subclass of ``GraphPass``. It edits graphs through an
``Editor`` and is composed with other passes in a ``Pipeline``. A backend is made of observers,
specs and kernel families.
"""

from quantfx.passes.annotate.annotate import Annotate
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.draw.dump_graphs import DumpGraphs
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.remark import Remark
from quantfx.passes.lower.lower import Lower
from quantfx.passes.observers.observer import Observer
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.instruments import CheckNumerics, Instrument
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import PassRecord, records_of
from quantfx.passes.quant.annotation import Annotation, annotation_of
from quantfx.passes.quant.qparams import QParams, qparams_from_range
from quantfx.passes.quant.spec import CastSpec, QuantSpec

__all__ = [
    "Annotate",
    "Annotation",
    "Candidate",
    "CastSpec",
    "CheckNumerics",
    "Context",
    "DumpGraphs",
    "Editor",
    "Emission",
    "GraphPass",
    "Instrument",
    "KernelFamily",
    "Lower",
    "Observer",
    "Pass",
    "PassRecord",
    "PassResult",
    "Pipeline",
    "QParams",
    "QuantSpec",
    "Recipe",
    "Remark",
    "Site",
    "all_graphs",
    "annotation_of",
    "qparams_from_range",
    "records_of",
]
