"""Editors of every kind by `--system`: what they are given, what is kept, and what a failure leaves."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from rich.console import Console

from benchmark.core.item import BenchmarkError, Item, Loaded, RunStopped, Unscored
from benchmark.evaluation.results import Run, RunConfig
from benchmark.evaluation.runner import execute
from benchmark.suites import open_suite
from benchmark.systems.checkpoint_editor import EditSettings
from benchmark.systems.configuration import open_system
from benchmark.systems.diffusers_pipeline import frames_of
from benchmark.systems.edit_cache import CachedEdits
from benchmark.systems.item_fields import Fields, Shape, filled
from benchmark.systems.program import Program
from benchmark.systems.served_editor import ServedEditor
from shards.media import encode_image, read_video, write_mask
from tests import forked
from tests.benchmark import pipelines, synthetic
from tests.benchmark.stub import Stub

STILL = {"metrics": [{"class_path": "tests.benchmark.test_systems.Brightness"}]}


class Brightness:
    """Mean grey level of the result."""

    name, label, unit, higher_is_better, range, version = "brightness", "Brightness", "", True, (0, 255), 1
    identity = "brightness"

    def __call__(self, reference: object, result: np.ndarray) -> float:
        return float(result.mean())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EditVerseBench's layout: four edits of two clips of 5 and 6 frames, 32x56 and 56x32."""
    return synthetic.write_benchmark(tmp_path_factory.mktemp("bench"), 4, frames=5, side=32)


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.yaml"
    path.write_text(yaml.safe_dump(STILL))
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "edit.py"
    path.write_text(pipelines.PROGRAM)
    return path


def run_of(bench: Path, out: Path, metrics: Path, limit: int | None = None, **systems: str) -> Run:
    config = RunConfig("editversebench", str(bench), None, limit=limit, metrics=str(metrics), systems=systems)
    return execute(config, out, Console(quiet=True), gallery=0)


def first(bench: Path) -> tuple[Item, Loaded]:
    item = open_suite("editversebench", bench).items[0]
    return item, item.load()


def test_fields_of_an_item_in_a_text() -> None:
    held: dict[str, Any] = {"instruction": "Add a hat.", "seed": 3, "video": np.zeros((2, 4, 4, 3), np.uint8)}
    assert filled("Edit {seed}: {instruction}", held.get) == "Edit 3: Add a hat."
    assert filled("{video}", held.get) is held["video"]
    assert filled("{target_prompt|instruction}", held.get) == "Add a hat."
    assert filled("{mask?}", held.get) is None
    assert filled(7, held.get) == 7
    with pytest.raises(BenchmarkError, match="the item has no mask, which it needs"):
        filled("{mask}", held.get)
    with pytest.raises(BenchmarkError, match="cannot stand amid words"):
        filled("a {video}", held.get)


def test_media_are_brought_to_what_an_editor_takes(bench: Path, tmp_path: Path) -> None:
    item, loaded = first(bench)  # five frames of 32x56
    shape = Shape(multiple=16, area=16 * 48, stride=4, longest=8)
    assert [shape.length(n) for n in (1, 2, 5, 6, 40)] == [1, 5, 5, 5, 5]
    assert Shape(stride=4).length(6) == 9
    height, width = shape.size(32, 56)
    assert (height % 16, width % 16) == (0, 0)
    assert height * width <= 16 * 48
    fields = Fields(item, loaded, Shape(multiple=8, stride=4), seed=1)
    assert fields.get("video").shape == (5, 32, 56, 3)
    assert fields.get("mask") is None
    known = Loaded(loaded.source, None, np.ones((5, 32, 56), bool), loaded.fps, loaded.inputs)
    assert Fields(item, known, Shape(), seed=1).get("mask") is None  # the words give none
    assert Fields(item, known, Shape(), seed=1).get("region").all()
    write_mask(tmp_path / "mask.mkv", np.arange(5 * 32 * 56).reshape(5, 32, 56) % 2, 8.0)
    given = loaded.inputs | {
        "mask": (tmp_path / "mask.mkv").read_bytes(),
        "image1": encode_image(loaded.source[0]),
    }
    masked = Loaded(loaded.source, None, None, loaded.fps, given)
    fields = Fields(item, masked, Shape(), seed=1)
    assert fields.get("mask").mean() == pytest.approx(0.5)
    grey = fields.get("masked")
    assert (grey[fields.get("mask")] == 127).all()
    assert (grey[~fields.get("mask")] == loaded.source[~fields.get("mask")]).all()
    assert [picture.shape for picture in fields.get("references")] == [(32, 56, 3)]
    still = Fields(item, masked, Shape(), seed=1, frame=3)
    assert (still.get("image") == loaded.source[3]).all()
    assert still.get("mask").shape == (32, 56)
    # six frames are filled up to nine, of which what is made of three is cut off
    long = Fields(
        item, Loaded(np.repeat(loaded.source, 2, axis=0)[:6], None, None, 8.0, {}), Shape(stride=4), 1
    )
    assert (len(long.get("video")), long.kept) == (9, 6)
    assert (long.get("video")[6:] == long.get("video")[5]).all()


def test_what_a_pipeline_gives_becomes_frames() -> None:
    class Output:
        def __init__(self, **held: Any) -> None:
            self.__dict__.update(held)

    half = frames_of(Output(frames=np.full((1, 3, 4, 6, 3), 0.5)))
    assert half.shape == (3, 4, 6, 3)
    assert (half == 128).all()
    with pytest.raises(BenchmarkError, match="not finite"):
        frames_of(Output(images=np.full((1, 4, 6, 3), np.nan)))
    with pytest.raises(BenchmarkError, match="3 colours"):
        frames_of(Output(images=np.zeros((1, 4, 6, 4))))
    with pytest.raises(BenchmarkError, match="no latents"):
        frames_of(Output(images=np.zeros((1, 4, 6, 3))), "latents")


def test_a_program_edits_and_its_file_is_kept_to_the_byte(
    bench: Path, metrics: Path, program: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    said = f"command:{sys.executable} {program} {{video}} {{out}} {{instruction}} {log}"
    run = run_of(bench, tmp_path / "out", metrics, 1, inverse=said)
    assert run.failures() == []
    assert run.counts["edits_made"] == 1
    (kept,) = (tmp_path / "out" / "edits").glob("*.mp4")
    _, loaded = first(bench)
    made = read_video(kept)[0]
    assert np.abs(made.astype(int) - (255 - loaded.source)).mean() < 8  # the program wrote H.264
    summary = run.summary()
    assert set(summary["seconds_per_edit"]) == set(summary["peak_bytes"]) == {"inverse"}
    assert summary["peak_bytes"]["inverse"] > 20 << 20  # an interpreter with OpenCV
    again = run_of(bench, tmp_path / "out", metrics, 1, inverse=said)
    assert (again.counts["edits_made"], again.counts["edits_reused"]) == (0, 1)
    assert again.counts["scores_computed"] == 0
    assert log.read_text().count("begin") == 1
    # another program is another edit
    program.write_text(pipelines.PROGRAM.replace("255 - frames", "frames"))
    changed = run_of(bench, tmp_path / "out", metrics, 1, inverse=said)
    assert changed.counts["edits_made"] == 1


FAILURES = {
    "exit": (
        "import sys; print('loading'); sys.exit('no such\\nmodel')",
        "ended with status 1: no such | model",
    ),
    "time": ("import time; time.sleep(60)", "did not end within 0.5 s and was killed"),
    "memory": ("held = bytearray(300 << 20); import time; time.sleep(60)", "GiB of memory, 0.1 are allowed"),
    "nothing": ("pass", "ended well and wrote no result"),
    "rubbish": ("import sys; open(sys.argv[1], 'w').write('<html>')", "what came back cannot be read"),
    "signal": ("import os; os.kill(os.getpid(), 11)", "was killed by signal 11"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_program_that_fails_says_how(case: str, bench: Path, tmp_path: Path) -> None:
    code, reason = FAILURES[case]
    limits: dict[str, Any] = {"time": {"timeout": 0.5}, "memory": {"memory": 0.1}}.get(case, {})
    editor = Program([sys.executable, "-S", "-c", code, "{out}"], **limits)
    cache = CachedEdits(tmp_path, editor, {"row": "edit"})
    item, _ = first(bench)
    found = cache.make(item, item.load)
    assert isinstance(found, Unscored)
    assert found.retry
    assert reason in found.reason
    assert len(found.reason) < 700
    assert cache.result(item, item.load) == found
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_a_failed_edit_is_made_again_so_often_and_others_once(
    bench: Path, metrics: Path, program: Path, tmp_path: Path
) -> None:
    """As scores are: a run and `retry` later ones, whatever number of them there is."""
    log = tmp_path / "log"
    broken = f"open({str(log)!r}, 'a').write('begin'); raise SystemExit('no memory')"
    said = {
        "broken": f'command:{sys.executable} -S -c "{broken}" {{out}}',
        "copy": "command:cp {video} {out}",
    }
    config = RunConfig("editversebench", str(bench), None, limit=1, metrics=str(metrics), systems=said)
    tries = []
    for retry in (2, 0, 2, 2, 2, 3):
        run = execute(config, tmp_path / "out", Console(quiet=True), gallery=0, retry=retry)
        tries.append(log.read_text().count("begin"))
        assert [(row, reason) for _, row, _, reason in run.failures()] == [
            ("broken", "the edit failed: it ended with status 1: no memory")
        ]
    assert tries == [1, 1, 2, 3, 3, 4]
    assert run.failed_by_kind() == {"edit": 1}
    assert (run.counts["edits_made"], run.counts["edits_reused"]) == (0, 1)
    (kept,) = (tmp_path / "out" / "edits").glob("*.failed.json")
    kept.write_text("{}")
    (failed,) = execute(config, tmp_path / "out", Console(quiet=True), gallery=0, retry=9).failures()
    assert "delete it" in failed[3]


def test_an_editor_that_stops_leaves_a_report_of_what_was_edited(
    bench: Path, metrics: Path, tmp_path: Path
) -> None:
    """A server refuses from the third edit on; the editor after it is not asked, and a later run goes on."""
    refuses = True
    server = pipelines.Server(
        lambda n, body: (401, b"") if refuses and n >= 2 else (200, pipelines.video_of(body))
    )
    said = {"served": server.url, "late": "command:cp {video} {out}"}
    run = run_of(bench, tmp_path / "out", metrics, **said)
    assert "served: " in str(run.stopped)
    assert "refuses the request (401)" in run.remarks[0]
    assert (run.counts["edits_made"], run.counts["edits_reused"]) == (2, 0)
    assert len(run.outcomes) == 2
    assert [row for _, row, _, reason in run.failures() if "the run stopped" in reason] == ["late"] * 2
    assert len(run.failures()) == 2
    assert len(server.bodies) == 3
    refuses = False
    again = run_of(bench, tmp_path / "out", metrics, **said)
    assert again.stopped is None
    assert again.failures() == []
    assert (again.counts["edits_made"], again.counts["edits_reused"]) == (6, 2)
    refuses = True
    with pytest.raises(RunStopped, match="refuses the request"):
        run_of(bench, tmp_path / "none", metrics, **said)
    assert not (tmp_path / "none" / "scores.jsonl").exists()
    server.close()


def test_a_shell_only_where_it_is_asked_for(bench: Path, tmp_path: Path) -> None:
    item, loaded = first(bench)
    plain = Program("cp {video} {out} ; touch {out_dir}/x")
    with pytest.raises(BenchmarkError, match="ended with status"):
        plain.edit(item, loaded)
    through = Program("cp {video} {out}; echo '{instruction}' > " + str(tmp_path / "words"), shell=True)
    quoted = through.edit(item, loaded).content["edit"]
    assert quoted.data == loaded.inputs["video1"]
    with pytest.raises(BenchmarkError, match=r"no \{out\}"):
        Program("cp {video} here")
    with pytest.raises(BenchmarkError, match="vidoe"):
        Program("cp {vidoe} {out}")
    with pytest.raises(BenchmarkError, match="no program that can be run"):
        Program("no-such-program {out}")


def test_a_program_for_pictures_edits_a_clip_frame_by_frame(bench: Path, tmp_path: Path) -> None:
    item, loaded = first(bench)
    editor = Program("cp {image} {out}")
    made = editor.edit(item, loaded).content["edit"]
    assert (made == loaded.source).all()
    # a word is left out with its field
    script = tmp_path / "args.py"
    script.write_text("import sys, shutil; assert len(sys.argv) == 3, sys.argv; shutil.copy(*sys.argv[1:])")
    Program([sys.executable, str(script), "{video}", ["--mask", "{mask?}"], "{out}"]).edit(item, loaded)


def test_a_server_edits(bench: Path, metrics: Path, tmp_path: Path) -> None:
    """The item's own file is sent; a status of 5xx is asked again, and what comes back is kept."""
    server = pipelines.Server(lambda n, body: (503, b"busy") if n == 0 else (200, pipelines.video_of(body)))
    run = run_of(bench, tmp_path / "out", metrics, served=server.url)
    assert run.failures() == []
    assert len(server.bodies) == 5
    _, loaded = first(bench)
    assert pipelines.video_of(server.bodies[0]) == loaded.inputs["video1"]
    assert b"Make the waves of video 0 redder" in server.bodies[0]
    assert run.summary()["peak_bytes"] == {}
    assert set(run.summary()["seconds_per_edit"]) == {"served"}
    server.close()


ANSWERS: dict[str, tuple[tuple[int, bytes], str, int]] = {
    "busy": ((500, b"out of memory"), "answered 500: out of memory", 3),
    "refused": ((422, b'{"detail": "no video"}'), "answered 422: .*no video", 1),
    "page": ((200, b"<html>a gateway</html>"), "which is no video or picture", 1),
    "long": ((200, b"x" * 5000), "more than the 4000 bytes", 1),
    "empty": ((200, b""), "which is no video or picture", 1),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_server_that_fails_is_asked_a_bounded_number_of_times(
    case: str, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, reason, requests = ANSWERS[case]
    monkeypatch.setattr("benchmark.systems.served_editor.PAUSE", 0.01)
    server = pipelines.Server(lambda n, body: answer)
    item, loaded = first(bench)
    with pytest.raises(BenchmarkError, match=reason):
        ServedEditor(server.url, retries=2, most=4000).edit(item, loaded)
    assert len(server.bodies) == requests
    server.close()
    if case == "busy":  # and one that is not there stops the run
        with pytest.raises(RunStopped, match="start the server"):
            ServedEditor(server.url, retries=1).edit(item, loaded)


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_drips_is_not_waited_for(part: str, bench: Path) -> None:
    """Each piece comes in time, the whole does not."""
    stub = Stub()
    stub.reply = lambda n, request: (200, {"X-Drip": part}, "{}" * 50)
    item, loaded = first(bench)
    with pytest.raises(BenchmarkError, match=r"no answer within 0\.4 s"):
        ServedEditor(stub.url, {"clip": "{video}"}, form="json", timeout=0.4, retries=0).edit(item, loaded)
    assert len(stub.requests) == 1
    stub.server.shutdown()


def test_a_server_that_takes_and_gives_json(bench: Path) -> None:
    def reply(n: int, body: bytes) -> tuple[int, bytes]:
        sent = json.loads(body)
        assert sent["words"] == "Make the waves of video 0 redder, way 0."
        return 200, json.dumps({"data": {"video": "data:video/mp4;base64," + sent["clip"]}}).encode()

    server = pipelines.Server(reply)
    item, loaded = first(bench)
    fields = {"words": "{instruction}", "clip": "{video}", "mask": "{mask?}"}
    editor = ServedEditor(server.url, fields, form="json", answer="data.video")
    assert editor.edit(item, loaded).content["edit"].data == loaded.inputs["video1"]
    assert set(json.loads(server.bodies[0])) == {"words", "clip"}
    server.close()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("vace", "is none of diffusers:FOLDER"),
        ("diffusers:data", "no checkpoint of a diffusers pipeline"),
        ("results:nowhere", "nowhere is no folder"),
        ("none.yaml", "none.yaml: cannot be read"),
        ("checkpoint:none", "no such folder"),
    ],
)
def test_a_system_that_is_none_is_one_line(said: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=message) as raised:
        open_system("row", said, tmp_path, EditSettings(), "cpu")
    assert "\n" not in str(raised.value)


def test_every_preset_names_what_there_is() -> None:
    """Each file's class takes its arguments; a pipeline's call has the parameters that the file names."""
    import inspect

    import diffusers

    from benchmark.systems import diffusers_pipeline
    from benchmark.systems.item_fields import placeholders

    files = sorted(Path("configs/systems").glob("*.yaml"))
    assert len(files) >= 9
    for path in files:
        held = yaml.safe_load(path.read_text())
        module, _, name = held["class_path"].rpartition(".")
        kind = getattr(__import__(module, fromlist=[name]), name)
        assert set(held["init_args"]) <= set(inspect.signature(kind).parameters), path
        for fact in ("repository", "licence", "card", "verified"):
            assert held["about"][fact], path
        if kind is diffusers_pipeline.DiffusersPipeline:
            call = inspect.signature(getattr(diffusers, held["about"]["pipeline"]).__call__).parameters
            assert set(held["init_args"]["arguments"]) <= set(call), path
            placeholders(held["init_args"]["arguments"])
            Shape(**held["init_args"].get("shape", {}))


@pytest.mark.slow
def test_three_pipelines_a_program_and_a_server_are_killed_and_go_on(bench: Path, tmp_path: Path) -> None:
    """In one run: what was made before the kill is not made again, and the result is that of a whole run.

    Only the run that is killed is a process of its own: each would import diffusers and its pipelines anew.
    """
    made = {
        kind.__name__: kind(tmp_path / kind.__name__)
        for kind in (pipelines.image_editor, pipelines.vace, pipelines.video_to_video)
    }
    systems: dict[str, str] = {}
    for name, folder in made.items():
        held = {
            "class_path": "benchmark.systems.diffusers_pipeline.DiffusersPipeline",
            "init_args": {"path": str(folder), "arguments": {"num_inference_steps": 2}},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(held))
        systems[name] = str(tmp_path / f"{name}.yaml")
    program, log = tmp_path / "edit.py", tmp_path / "log"
    program.write_text(pipelines.PROGRAM)
    systems["program"] = f"command:{sys.executable} {program} {{video}} {{out}} {{instruction}} {log} 0.6"
    server = pipelines.Server(lambda n, body: (200, pipelines.video_of(body)))
    systems["served"] = server.url
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump(STILL))

    def start(out: Path) -> forked.Forked:
        given = [word for name, said in systems.items() for word in (f"--system.{name}", said)]
        what = ("--suite", "editversebench", "--data", bench, "--metrics", tmp_path / "metrics.yaml")
        return forked.Forked("benchmark", "run", *what, *given, "--limit", 2, "--device", "cpu", "--out", out)

    def edits(out: Path) -> dict[str, float]:
        return {p.name: p.stat().st_mtime_ns for p in (out / "edits").glob("[0-9a-f]*.json")}

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = run_of(bench, whole, tmp_path / "metrics.yaml", 2, **systems)
    assert (len(server.bodies), log.read_text().count("begin")) == (2, 2)
    process = start(broken)
    while len(edits(broken)) < 7 or log.read_text().count("begin") < 4:  # amid the program's second edit
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []  # the program went too
    kept = edits(broken)
    assert len(kept) == 7
    again = run_of(bench, broken, tmp_path / "metrics.yaml", 2, **systems)
    assert kept.items() <= edits(broken).items()
    assert len(edits(broken)) == 10
    assert not list((broken / "edits").glob(".*"))  # nothing half-written is left
    assert again.counts["edits_made"] == 3
    assert again.failures() == []
    assert again.items_out() == done.items_out()
    assert again.summary()["table"] == done.summary()["table"]
    assert set(again.summary()["seconds_per_edit"]) == set(systems)
    assert set(again.summary()["peak_bytes"]) == set(systems) - {"served"}
    server.close()
