"""Rules that hold for the whole tree: cheap imports, no pickle, locks without addresses, a true README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "curation", "model", "benchmark")
SOURCES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_is_cheap(package: str) -> None:
    heavy = "('torch', 'ray', 'transformers', 'cv2', 'av', 'lightning', 'diffusers')"
    code = f"import {package}, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_a_command(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", package, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m {package}" in done.stdout


def test_no_pickle_anywhere() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) (pickle|joblib|dill)\b", text, re.M), path
        assert "weights_only=False" not in text, path
        assert "allow_pickle=True" not in text, path


def test_every_module_says_what_it_is_for() -> None:
    for path in SOURCES:
        assert path.read_text().startswith('"""'), path


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-models.lock", "requirements-uv.lock"])
def test_locks_hold_names_versions_and_hashes_only(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_the_readme_names_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        named = set(re.findall(r"`?make ([a-z-]+)", "\n".join(code_of(page.read_text()))))
        assert named <= targets, f"{page.name}: {named - targets}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def code_of(text: str) -> list[str]:
    """Fenced blocks and inline code of a Markdown page."""
    return re.findall(r"```.*?```|`[^`]+`", text, re.S)
