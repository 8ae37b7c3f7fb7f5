from __future__ import annotations

from pathlib import Path

import pytest

from quantfx import Config
from quantfx.passes.errors import ConfigError

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
        (("default", "defualt"), "mine.toml: unknown key 'defualt' (did you mean 'default'?)"),
        (("schema = 1", "schema = 2"), "mine.toml: schema = 2, expected 1"),
        (('"static"', '"statik"'), "mine.toml: default: no mode 'statik' (did you mean 'static'?)"),
        (("module", "modul"), "mine.toml: [rule 1, line 4]: a rule has one selector of"),
        (("mode = ", 'op = "add"\nmode = '), "[rule 1, line 4]: a rule has one selector of"),
        (('"float"', '"flaot"'), "mine.toml: [rule 1, line 4]: no mode 'flaot' (did you mean 'float'?)"),
        (('"head"', "3"), "[rule 1, line 4]: 'module' must be a string, not 3"),
        (('mode = "float"', "act = { observr = 1 }"), "[rule 1, line 4]: act: unknown option 'observr'"),
        (('mode = "float"', "act = 3"), "[rule 1, line 4]: act: 3 is neither options"),
        (('mode = "float"', ""), "[rule 1, line 4]: module='head' decides nothing"),
        (("module", "tensor"), ""),
        (('module = "head"\nmode = "float"', 'tensor = "a.b"\nmode = "static"'), "[rule 1, line 4]: a tensor has either"),
        (('module = "head"', "all = true"), "[rule 1, line 4]: the mode of the whole model is the config's default"),
        (('module = "head"', "all = false"), "'all' is true or left out"),
        (("[[rule]]", "[rule]"), "'rule' must be a list of tables"),
        (("= 1", "="), "mine.toml: not valid TOML"),
    ],
)  # fmt: skip
def test_errors_name_the_line_and_the_fix(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = (HEAD + RULE).replace(*change)
    if not message:
        assert read(tmp_path, text) == Config().tensor("head", None)
        return
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_a_byte_order_mark_and_an_ending_in_capitals(tmp_path: Path) -> None:
    for name, text in (
        ("A.TOML", Config("dynamic").to_toml()),
        ("B.JSON", Config("dynamic").to_json()),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert Config.of(str(tmp_path / name)) == Config("dynamic")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.toml: cannot be read"):
        Config.of(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="bad.json: not valid JSON.*line 1"):
        read(tmp_path, "{", "bad.json")
    with pytest.raises(ConfigError, match="list.json: 'config' must be a table"):
        read(tmp_path, "[]", "list.json")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match="latin.toml: not UTF-8"):
        Config.of(tmp_path / "latin.toml")
