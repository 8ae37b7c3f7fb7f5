"""The style of drawings: all colours, and the quoting of DOT text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from zlib import crc32

from quantfx.passes.draw.picture import EdgeKind, NodeKind

_FONT = "Helvetica,Arial,sans-serif"
_PALETTE = {
    "ink": "#1f2937",
    "faint": "#6b7280",
    "line": "#9ca3af",
    "paper": "#ffffff",
    "box": "#f8fafc",
    "box line": "#cbd5e1",
    "kernel": "#dbeafe",
    "lowered": "#fef3c7",
    "value": "#f1f5f9",
    "match": "#16a34a",
    "wrong": "#dc2626",
    "centre": "#7c3aed",
    "integer": "#0f766e",
}
# Sharing groups; dark enough for white letters. Green and red are reserved for matches and errors.
_GROUP_COLOURS = (
    "#0284c7", "#0891b2", "#0d9488", "#2563eb", "#4f46e5", "#7c3aed",
    "#9333ea", "#c026d3", "#db2777", "#d97706", "#ea580c", "#a16207",
    "#075985", "#155e75", "#115e59", "#1e40af", "#3730a3", "#5b21b6",
    "#6b21a8", "#86198f", "#9d174d", "#92400e", "#713f12", "#475569",
    "#0c4a6e", "#4d7c0f", "#b45309", "#831843", "#7c2d12",
)  # fmt: skip
_PILL = {"height": "0.2", "margin": "0.08,0.02", "fontsize": "9"}

HEADER = {
    "graph": {
        "rankdir": "TB",
        "compound": "true",
        "nodesep": "0.28",
        "ranksep": "0.32",
        "pad": "0.2",
        "labeljust": "l",
        "fontname": _FONT,
        "fontsize": "10",
        "fontcolor": _PALETTE["faint"],
    },
    "node": {
        "shape": "box",
        "style": "rounded,filled",
        "fillcolor": _PALETTE["paper"],
        "color": _PALETTE["line"],
        "fontname": _FONT,
        "fontsize": "11",
        "fontcolor": _PALETTE["ink"],
        "height": "0.3",
        "margin": "0.12,0.05",
    },
    "edge": {
        "color": _PALETTE["line"],
        "arrowsize": "0.6",
        "fontname": _FONT,
        "fontsize": "8",
        "fontcolor": _PALETTE["faint"],
    },
}
_NODES: Mapping[NodeKind, Mapping[str, str]] = {
    "op": {},
    "kernel": {"fillcolor": _PALETTE["kernel"]},
    "lowered": {"fillcolor": _PALETTE["lowered"]},
    "scalar": {"fillcolor": _PALETTE["value"], "fontsize": "9"},
    "control": {"peripheries": "2", "fillcolor": _PALETTE["value"]},
    "input": {"shape": "ellipse", "fillcolor": _PALETTE["value"]},
    "output": {"shape": "ellipse", "fillcolor": _PALETTE["value"]},
    "constant": {"shape": "note", "fillcolor": _PALETTE["value"]},
    "quantize": {**_PILL, "color": "group", "fillcolor": "group", "fontcolor": _PALETTE["paper"]},
    "observe": {**_PILL, "style": "rounded,dashed", "color": "group", "fontcolor": "group"},
    "item": {**_PILL, "fillcolor": _PALETTE["value"]},
    "module": {
        "shape": "box3d",
        "style": "filled",
        "fillcolor": _PALETTE["box"],
        "margin": "0.16,0.1",
    },
    "stub": {**_PILL, "style": "rounded,dashed"},
}
_EDGES: Mapping[EdgeKind, Mapping[str, str]] = {
    "float": {},
    "int8": {"color": "group", "penwidth": "2.4", "arrowhead": "vee"},
    "dequantize": {"color": "group", "penwidth": "2.4"},
    "mismatch": {"color": _PALETTE["wrong"], "fontcolor": _PALETTE["wrong"], "penwidth": "2.4"},
    "scalar": {"style": "dotted"},
    "nested": {"style": "dashed", "arrowhead": "open"},
    "vanished": {"style": "dashed", "color": _PALETTE["wrong"]},
}
_CHANGES: Mapping[str, Mapping[str, str]] = {
    "appeared": {"style": "rounded,filled", "fillcolor": "#bbf7d0", "color": _PALETTE["match"]},
    "vanished": {"style": "rounded,filled,dashed", "fillcolor": "#fecaca", "color": "#dc2626"},
    "changed": {"style": "rounded,filled", "fillcolor": "#fde68a", "color": "#d97706"},
}
BOX = {"style": "rounded,filled", "fillcolor": _PALETTE["box"], "color": _PALETTE["box line"]}
MATCH = {"style": "rounded,dashed", "color": _PALETTE["match"], "fontcolor": _PALETTE["match"]}

# Labels are XML, which cannot spell these characters.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


# SQNR from 10 dB, where little signal is left, to 40 dB, the best that 8 bits reach.
_HEAT = ("#f87171", "#fb923c", "#fcd34d", "#d9f99d", "#bbf7d0")
_COLDEST, _HOTTEST = 40.0, 10.0


def node_style(
    kind: NodeKind, group: str, *, centre: bool, sqnr: float | None = None, change: str = ""
) -> dict[str, str]:
    """Return the attributes of a node."""
    style = _resolve(_NODES[kind], group)
    if sqnr is not None:
        style |= {"style": "rounded,filled", "fillcolor": _heat_colour(sqnr)}
    if change:
        style |= _CHANGES[change]
    if centre:
        style |= {"color": _PALETTE["centre"], "penwidth": "2.5"}
    return style


def edge_style(kind: EdgeKind, group: str) -> dict[str, str]:
    """Return the attributes of an edge."""
    return _resolve(_EDGES[kind], group)


def quote(text: str) -> str:
    """Return ``text`` as a DOT string; different texts give different strings."""
    visible = _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", text)
    escaped = visible.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def markup(text: str) -> str:
    """Return ``text`` for use inside an HTML-like label."""
    visible = _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", text)
    return visible.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def detail(lines: str) -> str:
    """Return finished markup in small, faint letters."""
    return f'<font point-size="9" color="{_PALETTE["faint"]}">{lines}</font>'


def attributes(values: Mapping[str, str]) -> str:
    """Return `` [a="1" b=<2>]``; values in angle brackets are HTML-like labels; "" if empty."""
    words = [f"{key}={_value(value)}" for key, value in values.items()]
    return f" [{' '.join(words)}]" if words else ""


def _value(value: str) -> str:
    return value if value.startswith("<") and value.endswith(">") else quote(value)


def _resolve(style: Mapping[str, str], group: str) -> dict[str, str]:
    return {key: _group_colour(group) if v == "group" else v for key, v in style.items()}


def _heat_colour(sqnr: float) -> str:
    share = (sqnr - _HOTTEST) / (_COLDEST - _HOTTEST)
    return _HEAT[int(min(max(share, 0.0), 0.999) * len(_HEAT))]


def _group_colour(group: str) -> str:
    if not group:
        return _PALETTE["integer"]
    return _GROUP_COLOURS[crc32(group.encode("utf-8", "surrogatepass")) % len(_GROUP_COLOURS)]
