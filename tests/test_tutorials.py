"""The code of docs/adding-a-*.md, taken from the pages and run as a reader would."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import benchmark.suites
from benchmark.__main__ import main as benchmark_main
from benchmark.core.item import BenchmarkError
from benchmark.suites.manifest import Media, media_item
from model.cli import main as model_main
from shards.media import read_video, write_video
from shards.reader import ShardSet
from shards.verify import verify

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> dict[str, str]:
    """The first block of each language of a page."""
    found = re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return dict(reversed(found))


def benchmark_run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "run", *map(str, words)])
    assert not benchmark_main()


@pytest.fixture
def pairs(tmp_path: Path, square: Callable[..., Any]) -> Path:
    """`a.mp4`, `a_edited.mp4`, `a.txt` and so on."""
    folder = tmp_path / "pairs"
    for number in range(10):
        source, target, _ = square(5, 48, 64, seed=number)
        write_video(folder / f"{number}.mp4", source, 10)
        write_video(folder / f"{number}_edited.mp4", target, 10)
        (folder / f"{number}.txt").write_text("Remove the square.\n")
    return folder


def test_a_metric(shard_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, and beside the suite's own, from a folder outside the project."""
    page = blocks("adding-a-metric.md")
    (tmp_path / "brightness.py").write_text(page["python"])
    (tmp_path / "brightness.yaml").write_text(page["yaml"])
    monkeypatch.syspath_prepend(str(tmp_path))
    results = tmp_path / "results"
    for record in ShardSet(shard_dir, "heldout"):
        frames, fps = record.video("video1")
        write_video(results / f"{record.key}.mp4", 255 - frames, fps)
    given = ["--data", shard_dir, "--results", json.dumps({"inverted": str(results)}), "--gallery", 0]
    metrics = tmp_path / "brightness.yaml"
    benchmark_run(monkeypatch, *given, "--metrics", metrics, "--out", tmp_path / "alone")
    benchmark_run(monkeypatch, *given, "--add-metrics", metrics, "--out", tmp_path / "beside")
    alone, beside = (
        json.loads((tmp_path / name / "items.json").read_text())["items"][0]["scores"]["inverted"]
        for name in ("alone", "beside")
    )
    assert set(alone) == {"brightness_change"}
    assert alone["brightness_change"] == beside["brightness_change"] > 1
    assert "psnr_inside" in beside


def test_a_suite(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its targets are a row; an item without media is named, brackets and all."""
    (pairs / "[lost].txt").write_text("Blur the square.\n")
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "folder_pairs.py").write_text(blocks("adding-a-suite.md")["python"])
    (tmp_path / "brightness.py").write_text(blocks("adding-a-metric.md")["python"])
    (tmp_path / "brightness.yaml").write_text(blocks("adding-a-metric.md")["yaml"])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(benchmark.suites, "__path__", [*benchmark.suites.__path__, str(tmp_path / "suites")])
    given = ["--suite", "folder_pairs", "--data", pairs, "--results", json.dumps({"copy": str(pairs)})]
    benchmark_run(
        monkeypatch, *given, "--metrics", tmp_path / "brightness.yaml", "--out", out := tmp_path / "out"
    )
    assert "unscored [lost] copy" in capsys.readouterr().out
    *items, lost = json.loads((out / "items.json").read_text())["items"]
    assert (lost["category"], len(items)) == ("blur", 10)
    assert all(item["category"] == "remove" for item in items)
    assert all(item["scores"]["copy"]["brightness_change"] == 0 for item in items)
    assert any(item["scores"]["target"]["brightness_change"] > 0 for item in items)
    assert "folder_pairs" in benchmark.suites.names()
    assert not {"manifest", "download"} & set(benchmark.suites.names())  # which suites share


def test_media_that_the_text_does_not_name(pairs: Path) -> None:
    media = {"video1": "0.mp4", "target": "0_edited.mp4"}
    with pytest.raises(BenchmarkError, match="0: media has 'target', but the text names no <target>"):
        media_item("0", "edit", "<video1> Remove it.", Media(pairs), media, "0.mp4", {})


def test_a_model_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(blocks("adding-a-model-size.md")["yaml"])
    size = ["--model", str(tmp_path / "tiny.yaml")]
    assert model_main(["info", *size, "--tokens", "[300, 450]"]) == 0
    assert "parameters" in capsys.readouterr().out
    mixture = DOCS.parent / "configs" / "train" / "mixtures" / "editverse.yaml"
    assert model_main(["plan", *size, "--mixture", str(mixture), "--ranks", "2", "--batch_size", "4"]) == 0
    assert "estimates for a rank" in capsys.readouterr().out


def test_a_data_set(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that verify, and that training reads."""
    program = tmp_path / "pairs.py"
    program.write_text(blocks("adding-a-dataset.md")["python"])
    monkeypatch.setattr(sys, "argv", ["pairs.py", str(pairs), str(tmp_path / "shards")])
    exec(compile(program.read_text(), str(program), "exec"), {"__name__": "__main__"})
    report = verify(tmp_path / "shards")
    assert (report.samples, report.faults) == (10, [])
    size = yaml.safe_load(blocks("adding-a-model-size.md")["yaml"])
    size["dit"] |= {"width": 64, "depth": 1, "heads": 1}
    size["media"] = {"min_area": 1024, "max_area": 4096, "frames": 5}
    run = {
        "run": str(tmp_path / "run"),
        "data": {"shards": [str(tmp_path / "shards")], "batch_size": 2},
        "model": size,
        "train": {"steps": 1, "num_val_samples": 1},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert model_main(["fit", "--config", str(tmp_path / "run.yaml")]) == 0


@pytest.mark.slow
def test_your_own_pairs(tmp_path: Path) -> None:
    """The page, command by command, in less than five minutes of the processors' time."""
    page = blocks("your-own-pairs.md")
    (tmp_path / "make_pairs.py").write_text(page["python"])
    commands = [line.split(maxsplit=1) for line in page["sh"].splitlines()]
    assert [program for program, _ in commands] == ["editverse"] * 3
    environment = os.environ | {"PYTHONPATH": str(DOCS.parent), "OMP_NUM_THREADS": "2"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in (["make_pairs.py"], *(["-m", "editverse", *shlex.split(words)] for _, words in commands)):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * 300  # two cores
    assert (tmp_path / "runs/mine/adapter/adapter_model.safetensors").is_file()
    before_edit, fps = read_video(tmp_path / "my_pairs/0.mp4")
    after_edit, rate = read_video(tmp_path / "night.mp4")
    assert (after_edit.shape, rate) == (before_edit.shape, fps)
    assert after_edit.mean() < 0.75 * before_edit.mean()  # it is darker
