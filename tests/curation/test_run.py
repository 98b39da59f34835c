"""The run command on real clips: results, bad files among good ones, interruption, refusals."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import json
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curation.core.cache import ledger
from curation.engine.report import spread
from curation.engine.run import run
from curation.engine.watchdog import process_of
from shards.reader import Record, ShardSet
from shards.verify import verify

Cli = Callable[..., subprocess.CompletedProcess[str]]
Finished = tuple[Path, Path, subprocess.CompletedProcess[str]]


def digests(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("*.tar"))}


def test_the_run_makes_up_to_four_samples_of_every_accepted_pair(finished: Finished) -> None:
    out, _, done = finished
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["accepted"] >= 1
    # Both directions with a mask, and without one where words fit the person alone.
    masked = [r for r in _records(out) if r.sample.key.endswith("-mask")]
    assert len(masked) == 2 * summary["accepted"]
    assert len(masked) < summary["samples"] <= 4 * summary["accepted"]
    assert summary["candidates"] == summary["accepted"] + sum(summary["rejected"].values())
    for name in ("accepted", "rejected: ", "quarantined", "work per source frame"):
        assert name in done.stdout
    assert 10_000 < (out / "contact.jpg").stat().st_size < 2_000_000
    page = (out / "gallery.html").read_text()
    assert page.count("<video") == 2 * summary["accepted"]
    assert 'src="http' not in page
    for record in _records(out):
        assert html.escape(record.sample.text) in page
    for reason, count in summary["rejected"].items():
        assert f"{reason}: {count}" in page
    assert page.count('<img loading="lazy"') >= len(summary["rejected"])  # of the clips themselves
    assert f"Quarantined: {len(summary['quarantined'])}" in page
    assert summary["engine"] == "pool"
    assert re.search(r"^engine: pool, 2 processes without Ray, asked for$", done.stderr, re.M), done.stderr
    assert f"clips {summary['clips']}/{summary['clips']}, {summary['accepted']} accepted" in done.stderr


def test_the_shards_hold_what_they_say(finished: Finished) -> None:
    out, _, _ = finished
    report = verify(out)
    assert report.samples > 0
    assert not report.faults
    records = _records(out)
    tasks = {(r.sample.task, "<mask>" in r.sample.text) for r in records}
    assert tasks == {(t, m) for t in ("object_removal", "object_addition") for m in (False, True)}
    by_key = {r.sample.key: r for r in records}
    for key, record in by_key.items():
        if not key.endswith("-remove-mask"):
            continue
        source, _ = record.video("video1")
        target, _ = record.video("video2")
        mask = record.mask("mask")
        assert len(source) == len(target) == len(mask) >= 17
        assert source.shape[1:3] == (360, 480)
        # Before encoding nothing changes outside the mask; H.264 adds a little on both sides.
        assert record.sample.scores["outside_change"] == 0
        apart = np.abs(source.astype(int) - target).max(-1)
        assert apart[mask].mean() > 5 * apart[~mask].mean()
        reverse = by_key[key.replace("object_removal", "object_addition").replace("-remove", "-add")]
        assert reverse.bytes("video1") == record.bytes("video2")
        assert reverse.bytes("video2") == record.bytes("video1")


def _records(out: Path) -> list[Record]:
    shard_set = ShardSet(out, None)
    return [shard_set[i] for i in range(len(shard_set))]


def test_bad_files_are_quarantined_by_name_and_harm_nobody(
    finished: Finished, bad_files: dict[str, Path]
) -> None:
    out, _, done = finished
    reasons = [json.loads(line)["reason"] for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert len(reasons) == len(bad_files)
    for name in bad_files:
        mine = [r for r in reasons if f"{name}.mp4" in r]
        assert len(mine) == 1, (name, reasons)
        assert "\n" not in mine[0]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_and_repeated_gives_the_same_bytes_and_computes_nothing_twice(
    finished: Finished,
    start: Callable[..., subprocess.Popen[bytes]],
    cli: Cli,
    mixed_clips: Path,
    tmp_path: Path,
) -> None:
    out, workspace = tmp_path / "out", tmp_path / "workspace"
    arguments = ("run", "object_removal", "--clips", mixed_clips, "--out", out, "--workspace", workspace)
    total = len(ledger(finished[1]))
    moments = sorted(np.random.default_rng().choice(np.arange(1, total - 1), 2, replace=False).tolist())
    print("one worker, then the driver, killed after", moments, "of", total, "results")
    driver = start(*arguments, "--workers", "2", "--engine", "local")
    _until(lambda: len(ledger(workspace)) >= moments[0], driver)
    _until(lambda: bool(_at_work(driver, workspace)), driver)
    _at_work(driver, workspace)[0].kill()
    _until(lambda: len(ledger(workspace)) >= moments[1], driver)
    _kill(driver)
    committed = {line.key for line in ledger(workspace)}

    done = cli(*arguments, "--workers", "0")  # nothing depends on who computes it
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(finished[0])
    keys = [line.key for line in ledger(workspace)]
    assert len(keys) == len(set(keys)), "a result was computed twice"
    assert set(keys) == {line.key for line in ledger(finished[1])}
    summary = json.loads((out / "summary.json").read_text())
    assert sum(stage["computed"] for stage in summary["stages"].values()) == len(keys) - len(committed)


def _at_work(driver: subprocess.Popen[bytes], workspace: Path) -> list[psutil.Process]:
    """Processes that now cut a file or take a clip through a stage."""
    ours = {child.pid: child for child in psutil.Process(driver.pid).children(recursive=True)}
    notes = (workspace / "attempts").rglob("worker-*.json")
    return [ours[pid] for pid in map(process_of, notes) if pid in ours]


def _kill(driver: subprocess.Popen[bytes]) -> None:
    """`kill -9` a run's driver; workers that do not end by themselves go the same way.

    psutil knows a process by its number and its start: a number may be another process's, or another run's
    thread's, by the time of the second kill.
    """
    orphans = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    for _ in range(600):
        if not any(map(_lives, orphans)):
            break
        time.sleep(0.05)
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _lives(process: psutil.Process) -> bool:
    """Not so of a zombie that nobody waits for."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _until(holds: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    for _ in range(12_000):  # ten minutes: Ray alone takes two to start on a busy machine
        if holds():
            return
        assert driver.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError("the run did not get that far")


def test_one_process_gives_the_same_shards(
    finished: Finished, cli: Cli, mixed_clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = cli(
        *("run", "object_removal", "--clips", mixed_clips, "--out", out, "--workspace", finished[1]),
        *("--workers", "0"),
    )
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(finished[0])
    stages = json.loads((out / "summary.json").read_text())["stages"]
    assert sum(stage["computed"] for stage in stages.values()) == 0


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_wrong_requests_are_refused_in_one_line(
    cli: Cli, finished: Finished, good_clips: Path, tmp_path: Path
) -> None:
    refused(cli("run", "colourise", "--clips", good_clips), "colourise", "object_removal")
    refused(
        cli("run", "object_removal", "--clips", tmp_path, "--out", tmp_path / "o"),
        str(tmp_path),
        "no video files",
    )
    refused(
        cli("run", "object_removal", "--clips", tmp_path / "none", "--out", tmp_path / "o"), "no such folder"
    )
    other = tmp_path / "other.yaml"
    text = Path("configs/curation/object_removal.offline.yaml").read_text()
    other.write_text(text.replace("confidence: 0.35", "confidence: 0.5"))
    done = cli("run", "object_removal", "--clips", good_clips, "--out", finished[0], "--config", other)
    refused(done, str(finished[0]), "another config")
    other.write_text(text.replace("pose_landmark_full", "nowhere"))
    done = cli("run", "object_removal", "--clips", good_clips, "--out", tmp_path / "o", "--config", other)
    refused(done, "nowhere.tflite", "models fetch")
    other.write_text(text.replace("confidence:", "confidenze:"))
    done = cli("run", "object_removal", "--clips", good_clips, "--out", tmp_path / "o", "--config", other)
    refused(done, "confidenze")


def test_a_run_that_quarantines_everything_fails(
    cli: Cli, bad_files: dict[str, Path], tmp_path: Path
) -> None:
    arguments = (
        "--clips",
        bad_files["text"],
        "--out",
        tmp_path / "out",
        "--workspace",
        tmp_path / "w",
        "--workers",
        0,
    )
    refused(cli("run", "object_removal", *arguments), "quarantined")
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_full_disk_stops_the_run_in_one_line(cli: Cli, good_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    shutil.copy(good_clips / "a.mp4", tmp_path / "clips")
    arguments = (
        "--clips",
        tmp_path / "clips",
        "--out",
        tmp_path / "out",
        "--workspace",
        tmp_path / "w",
        "--workers",
        "0",
    )
    # No file may grow past 100 kB, which the system reports like a full disk.
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
    refused(cli("run", "object_removal", *arguments, before=limit), "File too large")
    assert not list((tmp_path / "w").rglob("*.mp4"))
    assert not list((tmp_path / "w" / "tmp").iterdir())
    # With room the same command goes on from there.
    done = cli("run", "object_removal", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["contact.jpg", "gallery.html", "summary.json", "manifest.jsonl"])
def test_a_run_leaves(finished: Finished, name: str) -> None:
    assert (finished[0] / name).stat().st_size > 0


def test_a_changed_number_reruns_what_depends_on_it_and_a_threshold_nothing(
    finished: Finished, good_clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished[1], tmp_path / "workspace")
    config = yaml.safe_load(Path("configs/curation/object_removal.offline.yaml").read_text())

    def computed(number: int, **changes: dict[str, float]) -> set[str]:
        config["init_args"] |= changes
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(config))
        done = run("object_removal", good_clips, tmp_path / f"{number}", tmp_path / "workspace", path, 0)
        return {name for name, work in done.stages.items() if work.computed}

    assert computed(0, gates={"shadow_share": 0.1, "max_windows": 1}) == set()
    assert computed(1, gates={}, recipe={"crf": 20}) == {"pair"}
    assert computed(2, recipe={"grow": 2}) == {"cut_out", "leftover", "pair"}


@given(st.integers(1, 700), st.integers(1, 300))
def test_what_is_shown_is_spread_over_all(count: int, most: int) -> None:
    shown = spread(list(range(count)), most)
    assert len(shown) == min(count, most)
    assert shown[0] == 0
    assert shown == sorted(set(shown))
    assert count - shown[-1] <= -(-count // len(shown))
