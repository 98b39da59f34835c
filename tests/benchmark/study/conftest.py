"""A tiny study of three methods on six items, made once as `study create` makes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmark.study.creation import create_study
from benchmark.study.definition import StudyDefinition
from tests.benchmark import synthetic
from tests.benchmark.study.definitions import tiny

METHODS = {"crimson": 1.0, "scarlet": 2.0, "vermilion": 3.0}  # how much each one tints its source
ITEMS, FRAMES, SIDE = 6, 5, 32


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the benchmark in `data` and results in `results/<method>`; read only."""
    root = tmp_path_factory.mktemp("material")
    synthetic.write_benchmark(root / "data", ITEMS, FRAMES, SIDE)
    for name, tint in METHODS.items():
        synthetic.write_results(root / "results" / name, ITEMS, tint, FRAMES, SIDE)
    return root


@pytest.fixture(scope="session")
def definition(material: Path) -> StudyDefinition:
    """Three raters of 14 pairs: 12 comparisons by two raters each, and one of each other kind."""
    results = {name: material / "results" / name for name in METHODS}
    return tiny("Which edit is better?", material, results, pairs=12, raters=3, raters_per_pair=2)


@pytest.fixture(scope="session")
def made_study(definition: StudyDefinition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study; read only."""
    folder = tmp_path_factory.mktemp("study") / "made"
    create_study(definition, folder)
    return folder


@pytest.fixture
def study(made_study: Path, tmp_path: Path) -> Path:
    """A copy of the study's folder, which a test may vote in."""
    return shutil.copytree(made_study, tmp_path / "study")
