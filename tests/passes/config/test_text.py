from __future__ import annotations

from pathlib import Path

import pytest

from quantfx import Config
from quantfx.passes.errors import ConfigError
from tests.refusals import refused

HEAD = 'schema = 1\ndefault = "static"\n\n'
RULE = '[[rule]]\nmodule = "head"\nmode = "float"\n'


def read(folder: Path, text: str, name: str = "mine.toml") -> Config:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return Config.of(file)


def test_the_form_of_a_file() -> None:
    config = (
        Config("static")
        .module("encoder.*", "dynamic", weights={"observer": "min_max"})
        .tensor("conv2d_3.input", None)
        .activations(symmetric=True)
    )
    assert config.to_toml() == (
        HEAD + '[[rule]]\nmodule = "encoder.*"\nmode = "dynamic"\n'
        'weights = { observer = "min_max" }\n'
        '\n[[rule]]\ntensor = "conv2d_3.input"\nmode = "float"\n'
        "\n[[rule]]\nall = true\nactivations = { symmetric = true }\n"
    )


def test_what_may_be_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Config("static")
    assert Config.of({"rule": [{"op": "conv2d", "mode": "float"}]}) == Config().op("conv2d", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("default", "defualt"), "unknown-name: mine.toml: defualt"),
        (("schema = 1", "schema = 2"), "file-version: mine.toml"),
        (('"static"', '"statik"'), "unknown-name: mine.toml: default: statik"),
        (("module", "modul"), "config-value: mine.toml: [rule 1, line 4]"),
        (("mode = ", 'op = "add"\nmode = '), "config-value: mine.toml: [rule 1, line 4]"),
        (('"float"', '"flaot"'), "unknown-name: mine.toml: [rule 1, line 4]: flaot"),
        (('"head"', "3"), "wrong-type: mine.toml: [rule 1, line 4]: module"),
        (('mode = "float"', "act = { observr = 1 }"), "unknown-name: mine.toml: [rule 1, line 4]: act: observr"),
        (('mode = "float"', "act = 3"), "config-value: mine.toml: [rule 1, line 4]: act: 3"),
        (('mode = "float"', ""), "config-value: mine.toml: [rule 1, line 4]: module='head'"),
        (("module", "tensor"), ""),
        (('module = "head"\nmode = "float"', 'tensor = "a.b"\nmode = "static"'), "config-value: mine.toml: [rule 1, line 4]: mode"),
        (('module = "head"', "all = true"), "config-value: mine.toml: [rule 1, line 4]: all"),
        (('module = "head"', "all = false"), "config-value: mine.toml: [rule 1, line 4]"),
        (("[[rule]]", "[rule]"), "wrong-type: mine.toml"),
        (("= 1", "="), "unreadable-file: mine.toml"),
    ],
)  # fmt: skip
def test_errors_name_the_line_and_the_fix(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = (HEAD + RULE).replace(*change)
    if not message:
        assert read(tmp_path, text) == Config().tensor("head", None)
        return
    with refused(message, ConfigError):
        read(tmp_path, text)


def test_a_byte_order_mark_and_an_ending_in_capitals(tmp_path: Path) -> None:
    for name, text in (
        ("A.TOML", Config("dynamic").to_toml()),
        ("B.JSON", Config("dynamic").to_json()),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert Config.of(str(tmp_path / name)) == Config("dynamic")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with refused("unreadable-file", ConfigError):
        Config.of(tmp_path / "none.toml")
    with refused("unreadable-file", ConfigError, site="bad.json", says="line 1"):
        read(tmp_path, "{", "bad.json")
    with refused("wrong-type", ConfigError, site="list.json: config"):
        read(tmp_path, "[]", "list.json")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with refused("unreadable-file", ConfigError, site="latin.toml"):
        Config.of(tmp_path / "latin.toml")
