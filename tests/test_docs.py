"""The documentation as a site, and the notebook, as a reader would have them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")], ids=lambda path: path.name)
def test_no_tag_is_lost_on_a_page(path: Path) -> None:
    """Markdown takes `<image1>` for HTML, which a browser leaves out, unless it stands in code."""
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)
    assert re.findall(r"<(?:image|video|mask)\d*>", text) == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in tmp_path.glob("*.html")} >= pages
    model = (tmp_path / "api" / "model.html").read_text()
    assert "model.inference.editor.Editor" in model
    for path in tmp_path.rglob("*.html"):  # read from a folder, without a network
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', path.read_text())
        assert [url for url in loaded if not url.startswith("https://squidfunk")] == [], path.name


@pytest.mark.slow
def test_the_notebook_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(ROOT / "notebooks" / "first_steps.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "committed without outputs"
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert "error:" not in printed, printed
    assert "Traceback" not in printed, printed
    assert (tmp_path / "edit.mp4").is_file()
    assert (tmp_path / "bench" / "report.html").is_file()
