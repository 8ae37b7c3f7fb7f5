"""The table of mutants fits the tree, so that a change of a file cannot make a mutant do nothing."""

from __future__ import annotations

import ast

from tests.mutants.run import ROOT, read_mutants, stale


def test_the_text_of_each_mutant_is_in_its_file_once() -> None:
    assert not stale(read_mutants())


def test_each_mutant_changes_the_code_and_leaves_it_readable() -> None:
    for each in read_mutants():
        text = (ROOT / each.file).read_text(encoding="utf-8")
        mutated = text.replace(each.old, each.new)
        assert mutated != text, each.breaks
        if each.file.endswith(".py"):
            assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(text)), each.breaks


def test_mutants_are_told_apart_by_what_they_break() -> None:
    broken = [each.breaks for each in read_mutants()]
    assert len({*broken}) == len(broken)
