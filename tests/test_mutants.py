"""The table of wrong changes stays true, and what tries them tells a caught change from a missed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.__main__ import table_of
from tests.mutants.mutant import PACKAGES, ROOT, Mutant, all_mutants
from tests.mutants.run import Result, try_mutant

MUTANTS = all_mutants()


def test_every_mutant_applies_once_and_is_python() -> None:
    """After a change to the code, say in tests/mutants what its lines are now."""
    for mutant in MUTANTS:
        assert mutant.file.partition("/")[0] in PACKAGES
        changed = mutant.source(ROOT)
        assert changed != (ROOT / mutant.file).read_text(), mutant.name
        compile(changed, mutant.file, "exec")
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40


def test_the_tests_that_mutants_name_are_there() -> None:
    for mutant in MUTANTS:
        assert mutant.tests
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert (ROOT / file).is_file(), f"{mutant.name}: {file}"
            assert not name or f"\ndef {name}(" in (ROOT / file).read_text(), f"{mutant.name}: {test}"


def test_the_page_shows_the_table() -> None:
    """`python -m tests.mutants --list` prints it."""
    assert table_of(MUTANTS) in (ROOT / "docs" / "testing.md").read_text()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of one line, and a test of it."""
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "__init__.py").write_text("")
    (tmp_path / "shards" / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "tests").mkdir()
    lines = "from shards.sums import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n"
    (tmp_path / "tests" / "test_sums.py").write_text(lines)
    return tmp_path


def test_a_change_is_caught_missed_or_cannot_be_tried(tree: Path) -> None:
    before = (tree / "shards" / "sums.py").read_bytes()

    def outcome(old: str, new: str, test: str = "tests/test_sums.py", equivalent: str = "") -> Result:
        mutant = Mutant("sum", "shards/sums.py", old, new, (test,), "sums are sums", equivalent)
        return try_mutant(mutant, tree)

    wrong = outcome("a + b", "a - b")
    assert (wrong.outcome, wrong.good) == ("caught", True)
    assert "FAILED tests/test_sums.py::test_add" in wrong.output
    same = outcome("a + b", "b + a")
    assert (same.outcome, same.good) == ("survived", False)
    argued = outcome("a + b", "b + a", equivalent="a sum does not depend on its order")
    assert (argued.outcome, argued.good) == ("survived", True)
    gone = outcome("a * b", "a - b")
    assert (gone.outcome, gone.good) == ("does not apply", False)
    assert "has 'a * b' 0 times, not once" in gone.output
    nowhere = outcome("a + b", "a - b", test="tests/test_none.py")
    assert (nowhere.outcome, nowhere.good) == ("does not run", False)
    assert (tree / "shards" / "sums.py").read_bytes() == before
