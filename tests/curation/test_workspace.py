"""The workspace: computed once, whole or not at all, one ledger line each."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from curation.core.cache import Workspace, code_of, ledger
from shards.hashing import digest


def test_a_result_is_computed_once_and_found_again(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> dict[str, int]:
        calls.append(folder)
        (folder / "file.bin").write_bytes(b"x" * 10)
        return {"answer": 42}

    first, second = Workspace(tmp_path), Workspace(tmp_path)
    folder, result = first.cached("stage", {"clip": "a"}, make)
    assert result == {"answer": 42}
    assert (folder / "file.bin").stat().st_size == 10
    assert second.cached("stage", {"clip": "a"}, make) == (folder, result)
    assert len(calls) == 1
    second.cached("stage", {"clip": "b"}, make)
    second.cached("other", {"clip": "a"}, make)
    assert len(calls) == 3
    assert (second.work["stage"].computed, second.work["stage"].reused) == (1, 1)
    assert len({line.key for line in ledger(tmp_path)}) == len(ledger(tmp_path)) == 3


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def make(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Workspace(tmp_path).cached("stage", 1, make)
    assert not ledger(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_two_at_once_leave_one_result_and_one_line(tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def make(folder: Path) -> dict[str, int]:
        together.wait(timeout=20)
        (folder / "file").write_text("same")
        return {"n": 1}

    spaces = [Workspace(tmp_path), Workspace(tmp_path)]
    threads = [threading.Thread(target=s.cached, args=("stage", 1, make)) for s in spaces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger(tmp_path)) == 1
    assert sum(s.work["stage"].computed for s in spaces) == 1
    assert not list((tmp_path / "tmp").iterdir())


def test_a_process_killed_in_the_middle_leaves_no_result(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from curation.core.cache import Workspace\n"
        "def make(folder):\n    (folder / 'half').write_text('half'); os.kill(os.getpid(), 9)\n"
        "Workspace(Path(sys.argv[1])).cached('stage', 1, make)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root).returncode == -9
    assert not list(tmp_path.rglob("result.json"))
    space = Workspace(tmp_path)
    space.sweep()
    assert space.cached("stage", 1, lambda folder: {"whole": True})[1] == {"whole": True}
    assert len(ledger(tmp_path)) == 1
    assert not (tmp_path / "tmp").exists() or not any((tmp_path / "tmp").iterdir())


def test_keys_depend_on_values_and_code() -> None:
    assert digest({"a": 1, "b": [1.5]}) == digest({"b": [1.5], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert code_of(Workspace) != code_of(ledger)
