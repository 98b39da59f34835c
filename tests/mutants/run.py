"""Applies mutants to copies of the tree and runs the tests nearest to each."""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutants.mutant import PACKAGES, Mutant

COPIED = (*PACKAGES, "tests", "configs", "docs", "pyproject.toml", "Makefile", "README.md")
LIMIT = 600.0  # seconds of one run of pytest
# Imported once, in a process that every run of pytest is forked from: they take longer than most tests.
HEAVY = ["pytest", "hypothesis", "pydantic", "torch", "torch.distributed.checkpoint", "lightning.pytorch"]
HEAVY += ["transformers.modeling_utils", "diffusers.schedulers", "scipy.stats", "cv2", "av"]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "CI": "true",  # Hypothesis takes the same examples every time
}
# what pytest's exit status says of the mutant; any other means that the tests themselves could not run
STATUS = {0: "survived", 1: "caught"}


@dataclass(frozen=True)
class Result:
    """What became of a mutant (caught, survived, does not apply or run) and what pytest printed."""

    mutant: Mutant
    outcome: str
    seconds: float
    output: str = ""

    @property
    def good(self) -> bool:
        """Whether that is as it should be."""
        return self.outcome == "caught" or (self.outcome == "survived" and bool(self.mutant.equivalent))


def copy_tree(root: Path, copy: Path) -> None:
    """Copy what the tests need; `data` is not among it."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, copy / name)


def _pytest(copy: Path, tests: Sequence[str], output: Path) -> None:
    """In a process of its own: run tests of a copy of the tree, and exit with pytest's status."""
    import pytest

    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    os.environ |= {"PYTHONPATH": str(copy)}
    # Two mutants of a file may have one size and, to the second, one age: all that byte code is known by.
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] in (*PACKAGES, "tests")]:
        del sys.modules[name]
    sys.path[:] = [str(copy), *(p for p in sys.path if p and not (Path(p) / "tests" / "mutants").is_dir())]
    # plain: a test that fails is enough; to say how two shards differ takes minutes
    status = pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", *tests])
    sys.stdout.flush()
    os._exit(status)


def prepare() -> None:
    """Set this process's environment, and what its runs of pytest are forked from. Before the first run."""
    os.environ |= ENVIRONMENT
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """pytest's exit status (None past the limit) and the end of what it printed."""
    context: Any = multiprocessing.get_context("forkserver")
    output = copy / "pytest.log"
    process = context.Process(target=_pytest, args=(copy, tests, output))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        return None, f"no answer in {LIMIT:.0f} seconds"
    return process.exitcode, output.read_text(errors="replace")[-3000:] if output.is_file() else ""


def try_mutant(mutant: Mutant, copy: Path) -> Result:
    """Change the copy, run the mutant's tests there, and change it back."""
    began = time.monotonic()
    try:
        changed = mutant.source(copy)
    except ValueError as error:
        return Result(mutant, "does not apply", 0.0, str(error))
    path = copy / mutant.file
    original = path.read_text()
    path.write_text(changed)
    try:
        status, output = run_tests(copy, mutant.tests)
    finally:
        path.write_text(original)
    outcome = STATUS.get(status, "does not run") if status is not None else "does not run"
    return Result(mutant, outcome, time.monotonic() - began, output)


@contextmanager
def copies(root: Path, count: int) -> Iterator[list[Path]]:
    """`count` copies of the tree in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        made = [Path(folder) / str(number) for number in range(count)]
        for copy in made:
            copy.mkdir()
            copy_tree(root, copy)
        yield made


def try_all(mutants: Iterable[Mutant], trees: Sequence[Path]) -> Iterator[Result]:
    """Results as they come, as many at a time as there are copies of the tree."""
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)

    def attempt(mutant: Mutant) -> Result:
        tree = free.get()
        try:
            return try_mutant(mutant, tree)
        finally:
            free.put(tree)

    with ThreadPoolExecutor(len(trees)) as pool:
        for future in as_completed([pool.submit(attempt, mutant) for mutant in mutants]):
            yield future.result()
