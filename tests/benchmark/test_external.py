"""GenEval and VBench: the folders that their programs read, and what is made of the results they write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.analysis.paper_tables import paper_table
from benchmark.cli.external import generate
from benchmark.core.item import BenchmarkError
from benchmark.external import geneval, vbench
from shards.media import probe, read_image


def results(path: Path, shares: dict[str, float], prompts: int = 20) -> Path:
    """A `results.jsonl` whose tasks have these shares of correct pictures."""
    rows = [
        {
            "filename": f"{task}{p}-{n}.png",
            "tag": task,
            "prompt": f"{task} {p}",
            "correct": (4 * p + n) < share * 4 * prompts,
        }
        for task, share in shares.items()
        for p in range(prompts)
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_geneval_reads_what_generate_made(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
        {"tag": "colors", "include": [{"class": "cow", "count": 1}], "prompt": "a photo of a red cow"},
    ]
    (tmp_path / "evaluation_metadata.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    what = {"data": str(tmp_path), "checkpoint": str(checkpoint), "out": str(tmp_path / "out")}
    generate("geneval", samples=2, **what)
    assert "4 made, 0 were there" in capsys.readouterr().out
    # what the published evaluate_images.py walks through
    for number, entry in enumerate(entries):
        folder = tmp_path / "out" / f"{number:05d}"
        assert json.loads((folder / "metadata.jsonl").read_text()) == entry
        pictures = [read_image(folder / "samples" / f"{n:04d}.png") for n in range(2)]
        assert pictures[0].shape == pictures[1].shape
        assert (pictures[0] != pictures[1]).any()  # another seed
    (tmp_path / "out" / "00001" / "samples" / "0001.png").unlink()
    generate("geneval", samples=2, **what)
    assert "1 made, 3 were there" in capsys.readouterr().out


def test_geneval_overall_is_the_mean_of_its_six_tasks(tmp_path: Path, command: Callable[..., Any]) -> None:
    """The row of the paper's own model: its parts give its overall."""
    table = paper_table("9")
    row = next(rows["EditVerse (Ours)"] for _, _, rows in table.cells() if "EditVerse (Ours)" in rows)
    parts = [float(row[c.key]) for c in table.columns if c.key != "overall" and not c.text]  # type: ignore[arg-type]
    shares = dict(zip(geneval.TASKS, parts, strict=True))
    found = geneval.collect(results(tmp_path / "results.jsonl", shares, prompts=25))
    for task, share in shares.items():
        mean = found.parts[task]
        assert mean.value == pytest.approx(100 * share)
        assert mean.clusters == 25
    assert found.totals["overall"] == pytest.approx(100 * sum(parts) / 6)
    assert any("GenEval has 553" in remark for remark in found.remarks)
    done = command("collect", "--suite", "geneval", "--results", tmp_path / "results.jsonl")
    assert done.returncode == 0, done.stderr
    assert "overall" in done.stdout


def test_a_missing_task_or_dimension_leaves_the_total_empty(tmp_path: Path) -> None:
    found = geneval.collect(results(tmp_path / "r.jsonl", {"counting": 0.5}))
    assert found.totals["overall"] is None
    assert "no pictures of the task colors" in found.remarks
    (tmp_path / "a_eval_results.json").write_text(json.dumps({"color": [0.9, []]}))
    found = vbench.collect(tmp_path)
    assert found.totals == {"total": None, "quality": None, "semantic": None}
    assert "no results of the dimension scene" in found.remarks
    (tmp_path / "r.jsonl").write_text("nothing\n")
    with pytest.raises(BenchmarkError, match="line 1 is no JSON"):
        geneval.collect(tmp_path / "r.jsonl")


def test_vbench_scores_follow_from_its_dimensions(tmp_path: Path) -> None:
    """Dimensions at their published ends give 0 and 100; dynamic degree counts half."""
    every = vbench.QUALITY | vbench.SEMANTIC
    lowest = {name: [low, []] for name, (low, _, _) in every.items()}
    (tmp_path / "x_eval_results.json").write_text(json.dumps(lowest))
    assert vbench.collect(tmp_path).totals == {"total": 0, "quality": 0, "semantic": 0}
    mixed = lowest | {"dynamic_degree": [1.0, []]} | {n: [vbench.SEMANTIC[n][1], []] for n in vbench.SEMANTIC}
    (tmp_path / "x_eval_results.json").write_text(json.dumps(mixed))
    totals = vbench.collect(tmp_path).totals
    assert totals["quality"] == pytest.approx(100 * 0.5 / 6.5)
    assert totals["semantic"] == pytest.approx(100)
    assert totals["total"] == pytest.approx((4 * 100 * 0.5 / 6.5 + 100) / 5)


def test_vbench_says_what_is_missing_and_refuses_what_is_there_twice(tmp_path: Path) -> None:
    """Results of folders within count, as in the published script; 25 videos of each prompt that flickers."""
    videos = [{"video_path": f"{n}.mp4", "video_results": 0.9} for n in range(500)]
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "s_eval_results.json").write_text(json.dumps({"scene": [0.5, videos[:429]]}))
    (tmp_path / "a_eval_results.json").write_text(json.dumps({"human action": [0.9, videos]}))
    found = vbench.collect(tmp_path)
    assert set(found.parts) == {"scene", "human_action"}
    told = [remark for remark in found.remarks if "no results of" not in remark]
    assert told == ["scene: 429 videos were scored, 86 prompts of 5 are 430"]
    (tmp_path / "b_eval_results.json").write_text(json.dumps({"scene": [0.6, videos]}))
    with pytest.raises(BenchmarkError, match=r"scene is in b_eval_results.json and in s_eval_results.json"):
        vbench.collect(tmp_path)
    listed = [
        {"prompt_en": "a toilet", "dimension": ["temporal_flickering"]},
        {"prompt_en": "a bench", "dimension": ["scene"]},
        {"prompt_en": "a toilet", "dimension": ["scene"]},
    ]
    (tmp_path / "VBench_full_info.json").write_text(json.dumps(listed))
    made = [w.text for w in vbench.wanted(tmp_path, tmp_path)]
    assert (made.count("a toilet"), made.count("a bench")) == (25, 5)
    assert len(vbench.wanted(tmp_path, tmp_path, samples=2)) == 4


def test_vbench_finds_its_videos_by_name(
    tmp_path: Path, checkpoint: Path, command: Callable[..., Any]
) -> None:
    listed = [{"prompt_en": "a toilet, frozen in time", "dimension": ["temporal_flickering"]}]
    (tmp_path / "VBench_full_info.json").write_text(json.dumps(listed * 2))  # a prompt of two dimensions
    what = ("generate", "--suite", "vbench", "--data", tmp_path, "--checkpoint", checkpoint, "--samples", 1)
    done = command(*what, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a toilet, frozen in time-0.mp4"]
    assert probe(tmp_path / "out" / "a toilet, frozen in time-0.mp4").frames > 1
    (tmp_path / "VBench_full_info.json").write_text('[{"prompt_en": "a/b"}]')
    with pytest.raises(BenchmarkError, match="cannot be a file's name"):
        vbench.wanted(tmp_path, tmp_path)
