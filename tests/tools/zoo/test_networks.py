from __future__ import annotations

from pathlib import Path

import pytest

from quantfx.tools.zoo.networks import Network, Values, ZooError, load_networks, select
from tests.refusals import refused


def networks_of(tmp_path: Path, text: str) -> tuple[Network, ...]:
    path = tmp_path / "networks.toml"
    path.write_text(text, encoding="utf-8")
    return load_networks(path)


def test_a_network_of_timm_has_one_square_input(tmp_path: Path) -> None:
    (network,) = networks_of(
        tmp_path, "[timm]\nvit = { pixels = 64, arguments = { img_size = 64 } }"
    )
    assert network == Network(
        "vit", "timm", "vit", {"": Values("image", (1, 3, 64, 64))}, {"img_size": 64}
    )


def test_a_network_of_transformers(tmp_path: Path) -> None:
    text = """
    [transformers.bert]
    model = "BertModel"
    config = "BertConfig"
    inputs = { input_ids = { kind = "tokens", shape = [2, 8], below = 30 } }
    """
    (network,) = networks_of(tmp_path, text)
    assert (network.model, network.config) == ("BertModel", "BertConfig")
    assert network.inputs == {"input_ids": Values("tokens", (2, 8), 30)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tim]\na = {}", "unknown-name: tim"),
        ("[timm]\na = { pixel = 3 }", "unknown-name: pixel"),
        ("[transformers.a]\nmodel = 'M'", "zoo-entry: inputs"),
        ("[module.a]\nmodel = 'm:M'\ninputs = { x = { kind = 'noise', shape = [1] } }", "unknown-name: noise"),
        ("[module.a]\nmodel = 'm:M'\ninputs = { x = { kind = 'ones', size = [1] } }", "unknown-name: size"),
        ("[timm]\na = {}\n[module.a]\nmodel = 'm:M'\ninputs = { x = { kind = 'ones', shape = [1] } }", "taken-name: a"),
    ],
)  # fmt: skip
def test_ill_formed_data_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with refused(message, ZooError):
        networks_of(tmp_path, text)


def test_the_zoo_is_well_formed_and_spans_families() -> None:
    networks = load_networks()
    libraries = [network.library for network in networks]
    assert libraries.count("timm") >= 60
    assert libraries.count("transformers") >= 25


def test_selecting_keeps_the_order_and_knows_its_names() -> None:
    networks = load_networks()
    assert select(networks, []) == networks
    chosen = select(networks, ["bert", "resnet18"])
    assert [network.name for network in chosen] == ["resnet18", "bert"]
    with refused("unknown-name", ZooError, site="resnet81"):
        select(networks, ["resnet81"])
