"""The command from end to end: what it scores, what it keeps, what it refuses and how it says so.

Real shards and a tiny random editor, through `python -m benchmark`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.suites import open_suite
from shards.index import rebuild
from shards.reader import ShardSet
from shards.writer import Item, write_shards

Command = Callable[..., subprocess.CompletedProcess[str]]
ROWS = ["source", "model", "model_raw", "target"]


def summary(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return value


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line on stderr with these words, status 2, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def corrupt(data: Path, out: Path, key: str, suffix: str, replacement: bytes) -> Path:
    """A copy of a shard folder in which the start of one member is overwritten; indexes stay valid."""
    shutil.copytree(data, out)
    shards = ShardSet(out)
    offset, size = shards.members(key)[suffix]
    for row in shards.rows:
        path = out / row.shard
        content = bytearray(path.read_bytes())
        if content[offset - 512 :].startswith(f"{key}.{suffix}".encode()):
            content[offset : offset + min(size, len(replacement))] = replacement[:size]
            path.write_bytes(content)
    return out


def test_all_rows_are_scored_on_all_items(scored: Path) -> None:
    value = summary(scored)
    table = value["table"]["all"]
    assert list(table) == ROWS
    for row in ROWS:
        for mean in table[row].values():
            assert (mean["scored"], mean["failed"], mean["clusters"]) == (12, 0, 3)
    assert table["target"]["psnr_inside"]["value"] == "inf"
    assert table["target"]["ssim_outside"]["value"] == pytest.approx(1, abs=1e-5)
    assert table["source"]["background_change"]["value"] == 0
    # a random editor is worse than doing nothing where nothing should change
    assert table["model"]["psnr_outside"]["value"] < table["source"]["psnr_outside"]["value"]
    assert value["clustered_by"] == "edit pair"
    assert value["counts"]["edits_made"] == 12


def test_groups_are_the_tasks_and_their_wordings(scored: Path) -> None:
    table = summary(scored)["table"]
    assert list(table)[:3] == ["all", "object_addition", "object_removal"]
    assert len(table) == 7
    for name, rows in table.items():
        count = {1: 6, 2: 3}[1 + ("," in name)] if name != "all" else 12
        assert rows["source"]["psnr_inside"]["scored"] == count


def test_held_out_items_alone_are_edited(scored: Path, pairs_dir: Path) -> None:
    edited = {json.loads(p.read_text())["item"] for p in (scored / "edits").glob("*.json")}
    assert edited == set(ShardSet(pairs_dir, "heldout").keys)


def test_a_second_run_computes_nothing_and_writes_the_same_page(
    scored: Path, pairs_dir: Path, checkpoint: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(scored, out)
    done = command("run", "--data", pairs_dir, "--checkpoint", checkpoint, "--out", out)
    assert done.returncode == 0, done.stderr
    counts = summary(out)["counts"]
    assert counts["edits_made"] == counts["scores_computed"] == counts["videos_encoded"] == 0
    assert counts["edits_reused"] == 12
    assert (out / "report.html").read_bytes() == (scored / "report.html").read_bytes()
    assert (out / "scores.jsonl").read_bytes() == (scored / "scores.jsonl").read_bytes()
    assert summary(out)["table"] == summary(scored)["table"]


def test_a_finished_run_needs_no_torch(
    scored: Path, pairs_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """`--device auto`, the default, does not ask torch for a GPU when nothing is left to compute."""
    out = tmp_path / "out"
    shutil.copytree(scored, out)
    code = """
import sys
from benchmark.__main__ import main
status = main()
loaded = sorted({"torch", "transformers", "lightning"} & sys.modules.keys())
sys.exit(f"{status}: {loaded}" if status or loaded else 0)
"""
    given = ["run", "--data", pairs_dir, "--checkpoint", checkpoint, "--out", out]
    parts = [sys.executable, "-c", code, *map(str, given)]
    done = subprocess.run(parts, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert summary(out)["counts"]["scores_computed"] == 0
    assert json.loads((out / "config.json").read_text())["device"] in ("cpu", "cuda")


def test_the_name_of_shipped_weights_is_found_without_torch() -> None:
    code = """
import sys
from pathlib import Path
from benchmark.systems.checkpoint_editor import weights_folder
assert (weights_folder(Path("nano")) / "model.safetensors").is_file()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_missing_or_changed_is_computed_again_and_nothing_else(
    scored: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(scored, out)
    scores = (out / "scores.jsonl").read_bytes()
    (out / "scores.jsonl").write_bytes(scores[: len(scores) // 2])  # killed in the middle of a line
    (out / "report.html").unlink()
    first, second, third, *_ = sorted((out / "edits").glob("*.json"))
    first.unlink()  # killed before the edit's facts were written
    second.with_suffix(".model.mkv").write_bytes(b"changed by hand")
    third.with_suffix(".model_raw.mkv").unlink()
    done = command("report", "--out", out)
    assert done.returncode == 0, done.stderr
    value = summary(out)
    assert (value["counts"]["edits_made"], value["counts"]["edits_reused"]) == (3, 9)
    assert value["counts"]["videos_encoded"] == 0  # an edit made again has the same bytes
    assert value["table"] == summary(scored)["table"]
    assert sorted((out / "scores.jsonl").read_bytes().splitlines()) == sorted(scores.splitlines())
    assert (out / "report.html").is_file()


def test_reference_rows_need_no_model(pairs_dir: Path, command: Command, tmp_path: Path) -> None:
    done = command("run", "--data", pairs_dir, "--out", tmp_path / "out", "--limit", 2)
    assert done.returncode == 0, done.stderr
    value = summary(tmp_path / "out")
    assert list(value["table"]["all"]) == ["source", "target"]
    assert value["items"] == 2


@pytest.mark.parametrize(
    ("suffix", "junk", "reason"),
    [("video1.mp4", b"\0" * 4000, "video1.mp4"), ("json", b'{"schema": 2, "nothing": ', "json")],
)
def test_one_corrupt_sample_is_counted_and_the_others_are_scored(
    suffix: str, junk: bytes, reason: str, pairs_dir: Path, command: Command, tmp_path: Path
) -> None:
    key = ShardSet(pairs_dir, "heldout").keys[2]
    data = corrupt(pairs_dir, tmp_path / "shards", key, suffix, junk)
    done = command("run", "--data", data, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    value = summary(tmp_path / "out")
    for row in ("source", "target"):
        for mean in value["table"]["all"][row].values():
            assert (mean["scored"], mean["failed"]) == (11, 1)
    assert {f["item"] for f in value["failures"]} == {key}
    assert all(reason in f["reason"] for f in value["failures"])
    assert key in done.stdout


def test_nothing_scored_is_a_failure(pairs_dir: Path, command: Command, tmp_path: Path) -> None:
    key = ShardSet(pairs_dir, "heldout").keys[0]
    data = corrupt(pairs_dir, tmp_path / "shards", key, "video2.mp4", b"\0" * 4000)
    done = command("run", "--data", data, "--out", tmp_path / "out", "--limit", 1)
    assert done.returncode == 1
    assert "nothing could be scored" in done.stderr
    assert key in done.stderr


def test_a_wrong_suite_lists_those_that_exist(pairs_dir: Path, command: Command, tmp_path: Path) -> None:
    done = command("run", "--suite", "held_out", "--data", pairs_dir, "--out", tmp_path / "out")
    refused(done, "held_out", "heldout")
    assert not (tmp_path / "out").exists()


def test_shards_without_held_out_samples_are_refused(
    pair_items: Callable[..., list[Item]], command: Command, tmp_path: Path
) -> None:
    write_shards(tmp_path / "shards", pair_items(tmp_path / "media", pairs=1, heldout=0))
    refused(command("run", "--data", tmp_path / "shards", "--out", tmp_path / "out"), "none of them held out")
    refused(command("run", "--data", tmp_path / "media", "--out", tmp_path / "out"), "manifest.jsonl")


def test_a_training_span_inside_a_held_out_span_is_refused_by_name(
    pair_items: Callable[..., list[Item]], command: Command, tmp_path: Path
) -> None:
    items = pair_items(tmp_path / "media", pairs=2, heldout=1, clips=1)
    leaking = []
    for sample, files in items:
        start = 0.0 if sample.split == "train" else 0.8  # pair 0 ends at 0.9 s
        clip = sample.provenance.clip.model_copy(update={"span": (start, start + 0.9)})
        provenance = sample.provenance.model_copy(update={"clip": clip})
        leaking.append((sample.model_copy(update={"provenance": provenance}), files))
    write_shards(tmp_path / "shards", leaking)
    done = command("run", "--data", tmp_path / "shards", "--out", tmp_path / "out")
    refused(done, "overlaps training sample", "object_addition-00000001-0000", "0.8-1.7 s")


def test_a_missing_or_broken_checkpoint_is_refused(
    pairs_dir: Path, checkpoint: Path, command: Command, tmp_path: Path
) -> None:
    arguments = ("run", "--data", pairs_dir, "--out", tmp_path / "out", "--checkpoint")
    refused(command(*arguments, tmp_path / "none"), "no such folder")
    shutil.copytree(checkpoint, tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    refused(command(*arguments, tmp_path / "half"), "model.safetensors")
    shutil.copytree(checkpoint, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(command(*arguments, tmp_path / "cut"), "does not load", "model.safetensors")
    # nothing was stored, so the folder is free for the next attempt
    done = command("run", "--data", pairs_dir, "--out", tmp_path / "out", "--limit", 1)
    assert done.returncode == 0, done.stderr


def test_an_output_folder_serves_one_configuration(
    scored: Path, pairs_dir: Path, checkpoint: Path, command: Command, tmp_path: Path
) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in scored.iterdir())
    arguments = ("run", "--data", pairs_dir, "--checkpoint", checkpoint)
    refused(command(*arguments, "--out", scored, "--seed", 5), "holds another run", "seed")
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "notes.txt").write_text("mine")
    refused(command(*arguments, "--out", tmp_path / "diary"), "no benchmark run")
    refused(command("report", "--out", tmp_path / "empty"), "config.json", "comes first")
    refused(command(*arguments, "--out", tmp_path / "x", "--limit", 0), "--limit 0")
    assert sorted((p.name, p.stat().st_mtime_ns) for p in scored.iterdir()) == before


def test_list_names_suites_and_metrics(command: Command) -> None:
    done = command("list")
    assert done.returncode == 0
    for name in ("heldout", "editversebench", "tgve_plus", "v2vbench", "imgedit"):
        assert name in done.stdout
    for name in ("metrics.warp.WarpError", "judges.judge.Judge", "metrics.text.VideoAlignment"):
        assert f"benchmark.{name}" in done.stdout


def test_a_run_compared_with_itself_and_with_the_source(
    scored: Path, command: Command, tmp_path: Path
) -> None:
    """No difference to itself, in any row; what two runs differ in is in the file and on the terminal."""
    for row in ("source", "model"):
        done = command(
            *("compare", str(scored), str(scored), "--row", row, "--out", str(tmp_path / "found.json"))
        )
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "found.json").read_text())
        psnr = found["metrics"]["psnr_inside"]
        assert psnr["mean"]["value"] == 0
        assert psnr["p"] in (1.0, None)
        assert "psnr_inside" in done.stdout
    missing = command("compare", str(scored), str(tmp_path))
    assert missing.returncode == 2
    assert "items.json: not found" in missing.stderr


def test_rebuilt_indexes_give_the_same_items(pairs_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(pairs_dir, tmp_path / "shards")
    before = open_suite("heldout", tmp_path / "shards").items
    rebuild(tmp_path / "shards")
    assert open_suite("heldout", tmp_path / "shards").items == before
    assert len({item.pair for item in before}) == 3  # removal, addition and both wordings are one pair


def test_a_run_without_networks_does_not_import_torch() -> None:
    """Its seconds would be most of a small run's time."""
    code = "import benchmark.evaluation.runner, benchmark.report.html, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
