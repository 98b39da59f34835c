"""The workspace: computed once, whole or not at all, one ledger line each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from curation.core.cache import Workspace, code_of, ledger
from shards.files import OutsideError
from shards.hashing import digest
from shards.processes import own_name


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


def test_a_result_that_is_found_tells_what_it_took(tmp_path: Path) -> None:
    def make(folder: Path) -> dict[str, int]:
        began = time.process_time()
        while time.process_time() < began + 0.05:
            pass
        return {"answer": 42}

    first, second, third = (Workspace(tmp_path) for _ in range(3))
    folder, _ = first.cached("stage", 1, make)
    second.cached("stage", 1, make)
    took, found = first.work["stage"], second.work["stage"]
    assert (took.saved_cpu_seconds, found.cpu_seconds) == (0.0, 0.0)
    assert 0.05 <= found.saved_cpu_seconds <= took.cpu_seconds
    assert found.saved_cpu_seconds <= found.saved_seconds <= took.seconds
    assert found.unpriced == 0
    (folder / "cost.json").unlink()  # as results of before have none
    third.cached("stage", 1, make)
    assert (third.work["stage"].saved_cpu_seconds, third.work["stage"].unpriced) == (0.0, 1)


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


def test_sweeping_spares_what_other_runs_are_at(tmp_path: Path) -> None:
    """A run in progress here, one on another machine, a dead one here, and one that nobody remembers."""
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    living = own_name()
    names = {
        "living": living,
        "elsewhere": "another-host.example-1.1.aabbccdd",
        "dead": living.replace(f".{os.getpid()}.", f".{dead.pid}."),
        "old": "another-host.example-1.2.aabbccdd",
    }
    for name in names.values():
        (tmp_path / "tmp" / name).mkdir(parents=True)
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(tmp_path / "tmp" / names["old"], (two_days_ago, two_days_ago))
    Workspace(tmp_path).sweep()
    left = {path.name for path in (tmp_path / "tmp").iterdir()}
    assert left == {names["living"], names["elsewhere"]}


def test_marks_of_attempts_are_those_of_the_run_and_unit(tmp_path: Path) -> None:
    code = (
        "import os, sys; from curation.core.cache import Workspace\n"
        "print(Workspace(sys.argv[1]).begin_attempt('run', 'clip'), flush=True); os.kill(os.getpid(), 9)"
    )
    for earlier in range(2):
        killed = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert (killed.returncode, killed.stdout) == (-9, f"{earlier}\n")
    space = Workspace(tmp_path)
    assert space.begin_attempt("other", "clip") == space.begin_attempt("run", "other") == 0
    assert space.begin_attempt("run", "clip") == 2
    space.end_attempt("run", "clip")
    assert space.begin_attempt("run", "clip") == 0
    space.end_run("run")
    assert [path.name for path in (tmp_path / "attempts").iterdir()] == ["other"]


def test_a_folder_that_loses_the_race_gives_way_only_to_a_whole_result(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    folder, _ = space.cached("stage", 1, lambda folder: {"n": 1})
    (folder / "result.json").rename(folder / "half")
    with pytest.raises(OSError, match="not empty"):
        space.cached("stage", 1, lambda folder: {"n": 1})
    assert not list((tmp_path / "tmp").iterdir())


def test_results_are_read_by_reference_and_references_stay_inside(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    folder, _ = space.cached("stage", 1, lambda folder: {"n": (folder / "a.bin").write_bytes(b"abc")})
    reference = space.reference(folder)
    assert space.read(reference) == {"n": 3}
    assert space.folder(reference) == folder
    assert space.path(f"{reference}/a.bin").read_bytes() == b"abc"
    with pytest.raises(OutsideError):
        space.folder("../elsewhere")
