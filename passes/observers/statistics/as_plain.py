"""Convert records to and from plain data and tensors by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.graph.graphs import Site
from quantfx.passes.observers.channel_record import BINS as CHANNEL_BINS
from quantfx.passes.observers.channel_record import ChannelRecord
from quantfx.passes.observers.histogram_record import BINS
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs, block_sizes
from quantfx.passes.observers.statistics.tensor_record import TensorRecord

Records = Mapping[tuple[Site, ...], TensorRecord]
Layers = Mapping[Site, LayerInputs]


def encode(records: Records, layers: Layers) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return plain data, and the tensors that it refers to, by key.

    Args:
        records: Records of tensors, each by its producer, and of groups.
        layers: Inputs of layers; layers that share a record share it in the file.
    """
    stored: dict[str, Tensor] = {}
    seen: list[dict[str, Any]] = []
    for number, (group, record) in enumerate(records.items()):
        key = f"tensor.{number}"
        stored |= {
            f"{key}.histogram": record.histogram,
            f"{key}.range": torch.stack((record.min_val, record.max_val)),
            f"{key}.extremes": record.extremes,
        }
        if record.channels is not None:
            stored |= {f"{key}.channels.{n}": t for n, t in record.channels.named_buffers()}
        channels = record.channels is not None
        seen.append({"sites": [list(site) for site in group], "channels": channels})
    readers: dict[int, tuple[LayerInputs, list[Site]]] = {}
    for site, inputs in layers.items():
        readers.setdefault(id(inputs), (inputs, []))[1].append(site)
    read: list[dict[str, Any]] = []
    for number, (inputs, sites) in enumerate(readers.values()):
        key = f"layer.{number}"
        stored |= {f"{key}.gram": inputs.gram, f"{key}.mean": inputs.mean}
        stored[f"{key}.held"] = inputs.held
        read.append({"sites": [list(site) for site in sites], "rows": inputs.rows})
    return {"tensors": seen, "layers": read}, stored


def decode(
    data: Mapping[str, Any], stored: Mapping[str, Tensor]
) -> tuple[dict[tuple[Site, ...], TensorRecord], dict[Site, LayerInputs]]:
    """Return what ``encode`` was given.

    Raises:
        KeyError: a part is missing.
        ValueError: a part has the wrong shape or dtype.
    """
    records: dict[tuple[Site, ...], TensorRecord] = {}
    for number, each in enumerate(data["tensors"]):
        key = f"tensor.{number}"
        low, high = _taken(stored, f"{key}.range", (2,)).unbind()
        records[_sites(each)] = TensorRecord(
            _taken(stored, f"{key}.histogram", (BINS,)),
            low,
            high,
            _taken(stored, f"{key}.extremes", (None, 2)),
            _channels(f"{key}.channels", stored) if bool(each["channels"]) else None,
        )
    layers: dict[Site, LayerInputs] = {}
    for number, each in enumerate(data["layers"]):
        mean = _taken(stored, f"layer.{number}.mean", (None, None))
        blocks, size = block_sizes(mean.shape[1])
        shape = (blocks * len(mean), size, size)
        gram = _taken(stored, f"layer.{number}.gram", shape)
        held = _taken(stored, f"layer.{number}.held", (len(mean), None, mean.shape[1]))
        inputs = LayerInputs(gram, mean, int(each["rows"]), held)
        layers |= dict.fromkeys(_sites(each), inputs)
    return records, layers


def encode_sample(calls: Sequence[tuple[Any, ...]]) -> tuple[list[list[Any]], dict[str, Tensor]]:
    """Return calls as plain data and tensors by key; a list of a key stands for its tensor."""
    stored: dict[str, Tensor] = {}
    plain: list[list[Any]] = []
    for number, call in enumerate(calls):
        plain.append([])
        for place, leaf in enumerate(call):
            key = f"sample.{number}.{place}"
            if isinstance(leaf, Tensor):
                stored[key] = leaf
            plain[-1].append([key] if isinstance(leaf, Tensor) else leaf)
    return plain, stored


def decode_sample(
    plain: Sequence[Sequence[Any]], stored: Mapping[str, Tensor]
) -> tuple[tuple[Any, ...], ...]:
    """Return what ``encode_sample`` was given.

    Raises:
        KeyError: a tensor is missing.
    """
    return tuple(
        tuple(stored[leaf[0]] if isinstance(leaf, list) else leaf for leaf in call)
        for call in plain
    )


def _channels(key: str, stored: Mapping[str, Tensor]) -> ChannelRecord:
    record = ChannelRecord()
    count = len(_taken(stored, f"{key}.low", (None,)))
    shapes = {"counts": (count, CHANNEL_BINS), "rows": ()}
    for name, buffer in list(record.named_buffers()):
        shape = shapes.get(name, (count,))
        setattr(record, name, _taken(stored, f"{key}.{name}", shape, buffer.dtype))
    return record


def _taken(
    stored: Mapping[str, Tensor],
    key: str,
    shape: tuple[int | None, ...],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    found = stored[key]
    fits = len(found.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, found.shape, strict=True)
    )
    if not fits or found.dtype != dtype:
        raise ValueError(f"{key} is {found.dtype} of shape {tuple(found.shape)}")
    return found


def _sites(data: Mapping[str, Any]) -> tuple[Site, ...]:
    return tuple(Site(str(graph), str(node), str(slot)) for graph, node, slot in data["sites"])
