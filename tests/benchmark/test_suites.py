"""Suites of published layouts, scored from folders of results: what is right, and what is wrong with them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from rich.console import Console

from benchmark.core.fingerprint import fingerprint
from benchmark.core.item import BenchmarkError, Geometry, Loaded, Reference, Unscored
from benchmark.evaluation.results import Run, RunConfig
from benchmark.evaluation.runner import claim, execute
from benchmark.features.clip import Clip
from benchmark.metrics.config import read_metrics
from benchmark.metrics.motion import MotionAlignment
from benchmark.metrics.temporal import TemporalConsistency
from benchmark.suites import open_suite
from shards.media import read_video, write_image, write_video
from tests.benchmark import synthetic
from tests.benchmark.stub import Reply, Stub, responded, said

EDITS = 10


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return synthetic.write_networks(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_benchmark(tmp_path_factory.mktemp("bench"), EDITS)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_results(tmp_path_factory.mktemp("ours"), EDITS)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory, networks: dict[str, Path]) -> Path:
    return synthetic.write_metrics(tmp_path_factory.mktemp("metrics") / "metrics.yaml", networks)


@pytest.fixture
def stub() -> Iterator[Stub]:
    served = Stub()
    yield served
    served.server.shutdown()


def scored(out: Path, data: Path, results: dict[str, Path], metrics: Path | None, **more: Any) -> Run:
    suite, workers = more.pop("suite", "editversebench"), more.pop("workers", 1)
    retry = more.pop("retry", 0)
    named = {name: str(folder) for name, folder in results.items()}
    config = RunConfig(
        suite, str(data), None, results=named, metrics=str(metrics) if metrics else None, **more
    )
    run = execute(config, out, Console(quiet=True), gallery=0, workers=workers, retry=retry)
    if run.stopped:
        raise run.stopped
    return run


def of(run: Run, row: str, metric: str) -> dict[str, Any]:
    found: dict[str, Any] = run.summary()["table"]["all"][row][metric]
    return found


def test_two_methods_are_scored_in_one_table(
    bench: Path, ours: Path, metrics: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    theirs = synthetic.write_results(tmp_path / "theirs", EDITS, tint=-1.0)
    given = json.dumps({"ours": str(ours), "theirs": str(theirs)})
    arguments = (
        "run",
        "--suite",
        "editversebench",
        "--data",
        bench,
        "--results",
        given,
        "--metrics",
        metrics,
    )
    done: subprocess.CompletedProcess[str] = command(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    table = summary["table"]
    assert list(table["all"]) == ["ours", "theirs"]
    assert set(table) == {
        "all",
        *synthetic.CATEGORIES,
        "orientation: horizontal",
        "orientation: vertical",
    }
    for row in ("ours", "theirs"):
        assert {m: (v["scored"], v["failed"]) for m, v in table["all"][row].items()} == dict.fromkeys(
            ["pick", "frame_text", "video_text", "clip_temporal", "dino_temporal"], (EDITS, 0)
        )
    assert summary["clustered_by"] == "source clip"
    assert summary["suite"]["sha256"]
    assert "EditVerseBench has 200" in summary["remarks"][0]
    assert table["all"]["ours"]["frame_text"]["value"] != table["all"]["theirs"]["frame_text"]["value"]


def test_a_score_is_what_the_metric_says_of_the_file(
    bench: Path, ours: Path, metrics: Path, networks: dict[str, Path], tmp_path: Path
) -> None:
    alone = scored(tmp_path / "one", bench, {"ours": ours}, metrics)
    many = scored(tmp_path / "many", bench, {"ours": ours}, metrics, workers=2)
    assert [o.scores for o in alone.outcomes] == [o.scores for o in many.outcomes]
    direct = TemporalConsistency(Clip(str(networks["clip"])), "x", "x")
    suite = open_suite("editversebench", bench)
    for number in (0, 3):
        item, frames = suite.items[number], read_video(ours / str(number) / "generate.mp4")[0]
        assert item.native is not None
        told = direct(Reference(item.load(), item.native, item.prompts), frames)
        assert alone.outcomes[number].scores["ours"]["clip_temporal"] == pytest.approx(told, abs=1e-9)


def test_modes_differ_and_have_folders_of_their_own(
    bench: Path, ours: Path, metrics: Path, tmp_path: Path
) -> None:
    official = scored(tmp_path / "out", bench, {"ours": ours}, metrics, mode="official")
    corrected = scored(tmp_path / "other", bench, {"ours": ours}, metrics)
    for name in ("frame_text", "video_text", "clip_temporal"):
        assert of(official, "ours", name)["value"] != of(corrected, "ours", name)["value"]
    with pytest.raises(BenchmarkError, match="holds another run"):
        claim(tmp_path / "out", corrected.config)


def test_one_changed_video_is_one_item_scored_again(
    bench: Path, ours: Path, metrics: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(ours, tmp_path / "mine")
    first = scored(tmp_path / "out", bench, {"mine": mine}, metrics)
    assert first.counts["scores_computed"] == 5 * EDITS
    frames, fps = read_video(mine / "4" / "generate.mp4")
    write_video(mine / "4" / "generate.mp4", frames[::-1], fps)
    again = scored(tmp_path / "out", bench, {"mine": mine}, metrics)
    assert (again.counts["scores_computed"], again.counts["scores_reused"]) == (5, 5 * (EDITS - 1))
    for before, after in zip(first.outcomes, again.outcomes, strict=True):
        assert (before.scores == after.scores) == (before.item.id != "4")


def test_other_weights_are_other_scores(
    bench: Path, ours: Path, networks: dict[str, Path], tmp_path: Path
) -> None:
    """A score is stored under the content of the networks that it came from, not under their names."""
    mine = {name: tmp_path / "nets" / path.name for name, path in networks.items()}
    for name, path in networks.items():
        copy = shutil.copytree if path.is_dir() else shutil.copy
        mine[name].parent.mkdir(exist_ok=True)
        copy(path, mine[name])
    file = synthetic.write_metrics(tmp_path / "metrics.yaml", mine)
    before = {m.name: fingerprint(m) for m in read_metrics(file, "corrected")}
    shutil.rmtree(mine["clip"])
    mine["clip"] = shutil.copytree(networks["pick"], tmp_path / "nets" / "clip2")
    file = synthetic.write_metrics(tmp_path / "metrics.yaml", mine)
    after = {m.name: fingerprint(m) for m in read_metrics(file, "corrected")}
    assert {name for name in before if before[name] != after[name]} == {"frame_text", "clip_temporal"}


def test_what_is_wrong_with_results_is_counted_and_named(
    bench: Path, ours: Path, metrics: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(ours, tmp_path / "mine")
    file = "generate.mp4"
    shutil.rmtree(mine / "0")
    (mine / "1" / file).write_bytes(b"no video")
    frames, fps = read_video(mine / "2" / file)
    write_video(mine / "2" / file, frames[:1], fps)
    write_video(mine / "3" / file, frames[:5, :40, :40], 2 * fps)
    (mine / "200").mkdir()
    run = scored(tmp_path / "out", bench, {"mine": mine}, metrics)
    reasons = {(item, metric): reason for item, _, metric, reason in run.failures()}
    assert "no result" in reasons["0", "all"]
    assert "cannot be read" in reasons["1", "all"]
    assert {m for i, m in reasons if i == "2"} == {"clip_temporal", "dino_temporal"}
    assert "one frame" in reasons["2", "clip_temporal"]
    assert of(run, "mine", "clip_temporal")["failed"] == 3
    assert of(run, "mine", "frame_text")["failed"] == 2
    notes = {n["note"] for n in run.summary()["differences"] if n["item"] == "3"}
    assert len(notes) == 3
    assert any("frames, the source has" in n for n in notes)
    assert any("frames per second, the source has" in n for n in notes)
    assert any("200 in" in r and "belongs to no item" in r for r in run.summary()["remarks"])
    values = [
        o.scores["mine"]["frame_text"]
        for o in run.outcomes
        if isinstance(o.scores["mine"]["frame_text"], float)
    ]
    assert of(run, "mine", "frame_text")["value"] == pytest.approx(np.mean(values))  # nothing counts as 0


def test_what_is_wrong_with_the_list_is_counted_and_named(
    bench: Path, ours: Path, metrics: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(bench, tmp_path / "data")
    held = json.loads((data / "test.json").read_text())
    del held["1"]["target_prompt"]
    held["2"]["<video1>"] = "videos/gone.mp4"
    text = json.dumps(held)
    twice = json.dumps({"3": held["4"]})
    (data / "test.json").write_text(f"{text[:-1]}, {twice[1:]}")
    run = scored(tmp_path / "out", data, {"ours": ours}, metrics)
    reasons = {item: reason for item, _, _, reason in run.failures()}
    assert "target_prompt" in reasons["1"]
    assert set(reasons) == {"1"}  # of 2 the source is gone, which none of these metrics reads
    assert any("3 is listed 2 times" in r for r in run.summary()["remarks"])
    (data / "test.json").write_text("[]")
    with pytest.raises(BenchmarkError, match=r"test\.json"):
        scored(tmp_path / "other", data, {"ours": ours}, metrics)


def test_a_judges_words_and_refusals_are_kept(
    bench: Path, ours: Path, networks: dict[str, Path], tmp_path: Path, stub: Stub
) -> None:
    good = '{"instruction": 3, "preservation": 2, "quality": 1, "reason": "The waves are red."}'
    filtered = said(None, finish_reason="content_filter")
    stub.reply = lambda n, request: filtered if "video 1 " in json.dumps(request) else said(good)
    file = synthetic.write_metrics(tmp_path / "metrics.yaml", networks, stub.url)
    run = scored(tmp_path / "out", bench, {"ours": ours}, file)
    assert (of(run, "ours", "judge")["value"], of(run, "ours", "judge")["failed"]) == (6.0, 2)
    assert {i for i, _, m, r in run.failures() if m == "judge" and "a refusal" in r} == {"2", "3"}
    item = run.items_out()["items"][0]
    assert "The waves are red." in item["words"]["ours"]["judge"]
    asked = len(stub.requests)
    again = scored(tmp_path / "out", bench, {"ours": ours}, file)
    assert len(stub.requests) == asked
    assert again.items_out() == run.items_out()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("metrics: []", "needs `metrics`"),
        ("metrics: [{class_path: os.system}]", "os.system is no class of os"),
        ("metrics: [{class_path: pathlib.Path}]", "pathlib.Path is no class"),
        ("metrics: [{class_path: benchmark.metrics.text.Nothing}]", "Nothing"),
        (
            "metrics: [{class_path: benchmark.metrics.text.VideoAlignment, init_args: {model: clip}}]",
            "no model",
        ),
        ("metrics: [{class_path: benchmark.metrics.psnr.Psnr, init_args: {what: 1}}]", "what"),
        ("other: 1\nmetrics: [{class_path: benchmark.metrics.warp.WarpError}]", "nothing else"),
    ],
)
def test_a_wrong_metrics_file_is_refused(change: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.yaml").write_text(change)
    with pytest.raises(BenchmarkError, match=words):
        read_metrics(tmp_path / "metrics.yaml", "corrected")


def test_missing_weights_end_the_run(bench: Path, ours: Path, tmp_path: Path) -> None:
    temporal = {
        "class_path": "benchmark.metrics.temporal.TemporalConsistency",
        "init_args": {"model": "clip", "name": "a", "label": "a"},
    }
    clip = {"class_path": "benchmark.features.clip.Clip", "init_args": {"path": str(tmp_path / "none")}}
    file = tmp_path / "metrics.yaml"
    file.write_text(yaml.safe_dump({"models": {"clip": clip}, "metrics": [temporal]}))
    with pytest.raises(BenchmarkError, match=r"none: no CLIP\w+ to load"):
        scored(tmp_path / "out", bench, {"ours": ours}, file)


def test_tgve_plus(networks: dict[str, Path], tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    rows = []
    for n in range(3):
        write_video(data / "480p" / f"{n}.mp4", synthetic.drawn(n, 9, 32, 32), 8)
        write_video(results / f"{n}.mp4", synthetic.drawn(n, 9, 32, 32, tint=1.0), 8)
        rows.append(
            {"instruction": "Make it red.", "input_caption": "Waves.", "output_caption": f"Red waves {n}."}
            | {"video": f"480p/{n}.mp4", "kind": "style"}
        )
    rows[2]["output_caption"] = ""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data / "tgve_plus.parquet")
    with pytest.raises(BenchmarkError, match=r"no column 'task'.*columns.json"):
        open_suite("tgve_plus", data)
    (data / "columns.json").write_text('{"task": "kind"}')
    file = tmp_path / "metrics.yaml"
    args = {"path": str(networks["viclip"]), "tokenizer": str(networks["tokenizer"])}
    config = yaml.safe_load(Path("configs/benchmark/tgve_plus.yaml").read_text())
    config["models"]["viclip"]["init_args"] = args
    file.write_text(yaml.safe_dump(config))
    run = scored(tmp_path / "out", data, {"a": results}, file, suite="tgve_plus")
    assert [of(run, "a", m)["scored"] for m in ("viclip_dir", "viclip_out")] == [2, 2]
    assert run.failures()[0][3] == "tgve_plus.parquet: row 2: output_caption is empty"


def test_v2vbench_takes_videos_and_pictures(tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    clip = synthetic.drawn(0, 6, 48, 48)
    for n, frame in enumerate(clip):
        write_image(data / "video" / "hike" / f"{n:02d}.png", frame)
        write_image(results / "hike" / "0" / f"{n:02d}.png", frame)
    moved = np.roll(clip, 2, axis=0)
    write_video(results / "hike" / "1.mp4", moved, 10)
    edits = [{"prompt": "a red hike"}, {"prompt": "a blue hike"}, {"prompt": "a hike by night"}]
    (data / "config.yaml").write_text(yaml.safe_dump({"data": [{"video_id": "hike", "edit": edits}]}))
    (tmp_path / "m.yaml").write_text("metrics: [{class_path: benchmark.metrics.motion.MotionAlignment}]")
    run = scored(tmp_path / "out", data, {"a": results}, tmp_path / "m.yaml", suite="v2vbench")
    still, other, gone = (o.scores["a"]["motion_alignment"] for o in run.outcomes)
    assert still == 0
    assert isinstance(other, float)
    assert other < -0.01
    assert "no result" in str(gone)
    assert MotionAlignment().higher_is_better


def test_imgedit_grades_are_capped_by_the_first(tmp_path: Path, stub: Stub) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    picture = synthetic.drawn(0, 1, 40, 40)[0]
    listed = {"7": ("animal/1.jpg", "adjust"), "12": ("style/2.jpg", "style")}
    for key, (path, _) in listed.items():
        write_image(data / "original_images" / path, picture)
        write_image(results / f"{key}.png", picture)
    entries = {k: {"id": p, "prompt": f"Do {k}.", "edit_type": kind} for k, (p, kind) in listed.items()}
    (data / "basic_edit.json").write_text(json.dumps(entries))
    judge = {
        "class_path": "curation.vlm.endpoint.Endpoint",
        "init_args": {"url": stub.url, "model": "m"},
    }
    pictures = {"class_path": "benchmark.judges.image_judge.PictureJudge", "init_args": {"model": "judge"}}

    def run(out: str, **args: Any) -> Run:
        pictures["init_args"] = {"model": "judge"} | args
        file = tmp_path / f"{out}.yaml"
        file.write_text(yaml.safe_dump({"models": {"judge": judge}, "metrics": [pictures]}))
        mode = "official" if args else "corrected"
        return scored(tmp_path / out, data, {"a": results}, file, suite="imgedit", mode=mode)

    stub.reply = lambda n, request: said('{"instruction": 2, "seamlessness": 5, "fidelity": 1}')
    assert of(run("corrected"), "a", "imgedit")["value"] == pytest.approx(5 / 3)  # 2, 2 and 1
    (tmp_path / "prompts.json").write_text(
        '{"adjust": "Grade <edit_prompt>", "style": "Style <edit_prompt>"}'
    )
    told = "Brief reasoning: fine\nPrompt Compliance: 2\nVisual Seamlessness: 5\nPhysical Fidelity: 4/5"
    stub.reply = lambda n, request: said(told)
    official = run("official", prompts=str(tmp_path / "prompts.json"))
    assert of(official, "a", "imgedit")["value"] == 3.5  # the published code drops the last line
    assert "Style Do 12." in json.dumps(stub.requests[-1]) or "Style Do 12." in json.dumps(stub.requests[-2])


def test_each_fault_of_the_published_code_is_measured(
    bench: Path,
    ours: Path,
    networks: dict[str, Path],
    tmp_path: Path,
    stub: Stub,
    command: Callable[..., Any],
) -> None:
    def grade(n: int, request: dict[str, Any]) -> Reply:
        """A total that falls with the blue of the second picture, then that total alone."""
        if "messages" in request:  # of the corrected judge
            return said("Good.")
        content = request["input"][0]["content"]
        urls = [part["image_url"] for part in content if part["type"] == "input_image"]
        if not urls:
            return responded(content[0]["text"][-1])
        data = np.frombuffer(base64.b64decode(urls[1].split(",", 1)[1]), np.uint8)
        blue, _, red = cv2.imdecode(data, cv2.IMREAD_COLOR).mean((0, 1))
        return responded(f"Total: {2 if blue > red else 7}")

    stub.reply = grade
    (tmp_path / "prompt.txt").write_text("Review: {instruction}")
    (tmp_path / "extract.txt").write_text("Total? {review}")
    wordings = {"prompt": str(tmp_path / "prompt.txt"), "extract": str(tmp_path / "extract.txt")}
    file = synthetic.write_metrics(tmp_path / "metrics.yaml", networks, stub.url, **wordings)
    what = ("--suite", "editversebench", "--data", bench, "--results", ours, "--metrics", file, "--limit", 4)
    done = command("faults", *what, "--out", tmp_path / "faults.json")
    assert done.returncode == 0, done.stderr
    found = {(e["metric"], e["fault"]): e for e in json.loads((tmp_path / "faults.json").read_text())}
    swap = found["judge", "it sees red and blue swapped"]
    assert (swap["official"], swap["mended"]) == (2, 7)  # the results are redder than blue
    square = "it sees the middle square of a frame"
    for name in ("pick", "frame_text", "video_text", "clip_temporal", "dino_temporal"):
        assert found[name, square]["changed"] == 4
    assert found["pick", "it shrinks long frames first (Pick)"]["changed"] == 0  # these are short
    assert found["video_text", "it samples starts of intervals, never the end"]["largest"] > 1e-4


def test_an_editor_gets_every_medium_that_an_entry_names(
    metrics: Path, checkpoint: Path, tmp_path: Path
) -> None:
    data = synthetic.write_benchmark(tmp_path / "bench", 3, side=32)
    held = json.loads((data / "test.json").read_text())
    frames, _ = read_video(data / held["1"]["<video1>"])
    write_image(data / "edited_first_frame" / "1.png", 255 - frames[0])
    held["1"] |= {
        "<text>": "<video1> edit the video following the first frame <image1>.",
        "<image1>": "edited_first_frame/1.png",
    }
    hole, fps = read_video(data / held["2"]["<video1>"])
    write_video(data / "inpaint_video_and_masks" / "2.mp4", 255 - hole, fps)
    held["2"] |= {
        "<text>": "Inpaint this video <video1> with mask <video2>. Waves.",
        "<video2>": "inpaint_video_and_masks/2.mp4",
    }
    (data / "test.json").write_text(json.dumps(held))
    config = RunConfig("editversebench", str(data), str(checkpoint), metrics=str(metrics))
    run = execute(config, tmp_path / "out", Console(quiet=True), gallery=0)
    assert run.failures() == []
    assert of(run, "model", "frame_text")["scored"] == 3
    assert run.counts["edits_made"] == 3
    item = open_suite("editversebench", data).items[1]
    assert set(item.load().inputs) == {"video1", "image1"}
    # another picture is another edit
    write_image(data / "edited_first_frame" / "1.png", frames[0])
    again = execute(config, tmp_path / "out", Console(quiet=True), gallery=0)
    assert (again.counts["edits_made"], again.counts["edits_reused"]) == (1, 2)


def test_motion_alignment_by_hand() -> None:
    """Minus the mean distance between the flows of neighbouring frames, of result and source."""
    source, result = synthetic.drawn(0, 4, 48, 64), synthetic.drawn(1, 4, 48, 64)
    apart = []
    for n in range(3):
        flows = []
        for video in (source, result):
            a, b = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video[n : n + 2])
            flows.append(cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, None))
        apart.append(np.sqrt(((flows[0] - flows[1]).astype(np.float64) ** 2).sum(-1)))
    reference = Reference(Loaded(source, None, None, 10, {}), Geometry(4, 48, 64, 10))
    metric = MotionAlignment(mode="official")
    assert metric(reference, result) == pytest.approx(-np.mean(apart), abs=1e-5)
    assert np.mean(apart) > 0.05
    assert isinstance(metric(reference, result[:, :40]), Unscored)


def test_a_worker_that_dies_is_said_in_one_line(
    bench: Path, ours: Path, metrics: Path, tmp_path: Path
) -> None:
    """As the kernel does when memory is short; what was scored before stays."""
    out, deadly, seen = tmp_path / "out", tmp_path / "deadly.yaml", tmp_path / "seen"
    seen.mkdir()
    entry = {"class_path": "tests.benchmark.deadly.DeadlyMetric", "init_args": {"folder": str(seen)}}
    deadly.write_text(yaml.safe_dump({"metrics": [entry]}))
    with pytest.raises(BenchmarkError, match="--workers 2: one of them died"):
        scored(out, bench, {"ours": ours}, metrics, workers=2, add_metrics=str(deadly))
    run = scored(out, bench, {"ours": ours}, metrics, add_metrics=str(deadly))
    assert run.counts["scores_reused"] >= 5
    assert run.failures() == []
