"""Receipts: licences and what they allow, prompts, seeds and parents, and what accepted pairs cost."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.__main__ import main
from shards.files import write_json
from shards.reader import ShardSet
from shards.reports.costs import costs_of
from shards.reports.ledger import Totals, rows
from shards.reports.licenses import commercial_use, license_of_step, verdict_of
from shards.sample import ClipRef, Given, Provenance, Sample, Step, parse_sample
from shards.writer import Item, write_shards

CLIP = ClipRef(sha256="0" * 64, name="a.mp4", span=(0.0, 1.0), license="CC0-1.0")


@pytest.mark.parametrize(
    ("license", "use", "why"),
    [
        ("CC0-1.0 (rendered)", "yes", ""),
        ("Apache-2.0", "yes", ""),
        ("MIT; its base Wan 2.1: Apache-2.0", "yes", ""),
        ("CC-BY-4.0", "yes", "with attribution"),
        ("CC BY-SA 4.0", "yes", "share alike"),
        ("CC-BY-NC-4.0", "no", "non-commercial"),
        ("CC BY-NC-SA 4.0", "no", "non-commercial"),
        ("FLUX.1 Kontext [dev] non-commercial", "no", "non-commercial"),
        ("Apache-2.0 (Small), CC-BY-NC-4.0 (Base, Large)", "unknown", "it depends on the checkpoint"),
        ("Apache-2.0; its prior ProPainter: NTU S-Lab License 1.0, non-commercial", "no", "non-commercial"),
        (
            "BSD (as stated by the package; the recording's owner is not named)",
            "unknown",
            "owner is not named",
        ),
        (
            "none is stated in its repository: ask its authors; its base: MIT",
            "unknown",
            "no licence is stated",
        ),
        ("as the endpoint's provider says", "unknown", "provider decides"),
        ("unknown", "unknown", "no licence is stated"),
        ("", "unknown", "no licence is stated"),
        ("Foo Public Licence 7", "unknown", "not among the licences that are known here: Foo"),
        ("CC-BY-ND-4.0", "unknown", "derivatives may not be shared"),
        ("outputs of OpenAI's GPT-4o", "unknown", "terms on outputs"),
    ],
)
def test_a_licence_is_read_conservatively(license: str, use: str, why: str) -> None:
    verdict = verdict_of(license)
    assert verdict.use == use
    assert why in verdict.reason


def test_one_part_of_a_sample_is_enough_to_forbid_it() -> None:
    free = Step(stage="track", backend="sam2", model="sam2-video", license="Apache-2.0")
    bound = Step(stage="edit", backend="program", model="diffueraser", license="CC-BY-NC-4.0")
    unsaid = Step(stage="judge", backend="somebody's")
    assert commercial_use(Provenance(clip=CLIP, steps=[free])).use == "yes"
    verdict = commercial_use(Provenance(clip=CLIP, steps=[free, unsaid, bound]))
    assert (verdict.use, verdict.reason) == ("no", "diffueraser: non-commercial: CC-BY-NC-4.0")
    assert commercial_use(Provenance(clip=CLIP, steps=[free, unsaid])).use == "unknown"
    unknown = CLIP.model_copy(update={"license": "unknown"})
    assert commercial_use(Provenance(clip=unknown, steps=[free])).reason == "clip: no licence is stated"


def test_what_a_sample_says_of_a_licence_counts_before_the_table() -> None:
    told = Step(stage="track", backend="sam2", model="sam2-video", license="my own terms")
    assert license_of_step(told) == ("my own terms", "sample")
    license, source = license_of_step(told.model_copy(update={"license": ""}))
    assert license == "Apache-2.0"
    assert "github.com/facebookresearch/sam2" in source
    assert license_of_step(Step(stage="x", backend="never heard of")) == ("unknown", "")


def test_an_imported_sample_is_under_the_licence_of_its_data_set() -> None:
    imported = [Step(stage="import", backend="folder"), Step(stage="reversal", backend="import")]
    assert commercial_use(Provenance(clip=CLIP, steps=imported)).use == "yes"
    bound = CLIP.model_copy(update={"license": "CC-BY-NC-4.0"})
    assert commercial_use(Provenance(clip=bound, steps=imported)).use == "no"
    made = Step(stage="origin", backend="gpt-4o")  # what made the edit is no program of ours
    assert commercial_use(Provenance(clip=CLIP, steps=[made, *imported])).use == "unknown"


def with_provenance(sample: Sample, **fields: Any) -> Sample:
    return sample.model_copy(update={"provenance": sample.provenance.model_copy(update=fields)})


def test_receipts_of_samples_without_them_are_the_bytes_of_before(
    tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    (sample, _), *_ = make_items(tmp_path, pairs=1, frames=5, height=32, width=48)
    written = sample.to_json()
    for name in (b'"given"', b'"parents"', b'"license": ""'):
        assert name not in written
    told = with_provenance(
        sample,
        given={"edit": Given(prompt="a red car", seed=7)},
        parents=("a-1", "b-2"),
        steps=[Step(stage="edit", backend="b", license="MIT")],
    )
    again = parse_sample(told.to_json(), "here")
    assert again.provenance == told.provenance
    assert parse_sample(written, "here") == sample


@pytest.fixture
def folders(tmp_path: Path, make_items: Callable[..., list[Item]]) -> list[str]:
    """Shards of a task, of one derived from it, and of imported pairs, which have no summary."""
    (tmp_path / "media").mkdir()
    items = make_items(tmp_path / "media", pairs=3, heldout=0, frames=5, height=32, width=48)
    recipe = Step(stage="first", backend="recipe")
    edit = Step(stage="edit", backend="diffusers", model="wan-vace", license="Apache-2.0")
    own = {"clip": CLIP, "steps": [edit, recipe], "given": {"edit": Given(prompt="a red car", seed=7)}}
    write_shards(tmp_path / "first", [(with_provenance(s, **own), f) for s, f in items])
    more = own | {"steps": [edit, recipe, Step(stage="second", backend="recipe")], "parents": ("a",)}
    write_shards(tmp_path / "second", [(with_provenance(s, **more), f) for s, f in items])
    write_shards(tmp_path / "third", items)
    work = {"computed": 2, "reused": 1, "cpu_seconds": 6.0, "seconds": 9.0}
    found = {"saved_cpu_seconds": 3.0, "saved_seconds": 5.0, "unpriced": 0}
    counts = {"accepted": 3, "samples": 3, "candidates": 10}
    stages = {"edit": work | found}
    write_json(
        tmp_path / "first/summary.json", {"task": "first", "stages": stages, "gpus": {"edit": 0.5}, **counts}
    )
    own_work = {"copy": {"computed": 3, "reused": 0, "cpu_seconds": 1.5, "seconds": 2.0}}
    write_json(tmp_path / "second/summary.json", {"task": "second", "stages": own_work, **counts})
    return [str(tmp_path / name) for name in ("first", "second", "third")]


def test_costs_are_for_each_accepted_pair_with_what_earlier_runs_took(folders: list[str]) -> None:
    totals = Totals()
    assert len(list(rows(folders, totals))) == 9
    first, second = totals.costs
    assert first.per_pair() == (3.0, 7.0 / 3)  # (6 + 3) / 3 core-seconds; 0.5 * (9 + 5) / 3 GPU-seconds
    assert second.per_pair() == (0.5, 0.0)
    assert second.per_pair(totals.by_task) == (3.5, 7.0 / 3)  # with the pair that it was made from
    assert second.per_pair({"second": second}) is None  # the parents' folder was not given
    assert totals.unpriced == [folders[2]]


def test_a_cost_that_nobody_noted_is_not_known(
    folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(folders[0]) / "summary.json"
    summary = json.loads(path.read_text())
    summary["stages"]["edit"] = {"computed": 2, "reused": 1, "cpu_seconds": 6.0, "seconds": 9.0}
    write_json(path, summary)  # as earlier versions wrote it: a found result cost nothing
    costs = costs_of(folders[0])
    assert costs is not None
    assert costs.per_pair() is None
    assert main_of("ledger", folders[0]) == 0
    printed = capsys.readouterr().out
    assert "not known" in printed
    assert "3 (1 of unknown cost)" in printed


def main_of(*words: str) -> int:
    """The exit status of a command as it is typed."""
    old = sys.argv
    sys.argv = ["shards", *words]
    try:
        return main()
    finally:
        sys.argv = old


def test_the_command_writes_every_sample_and_prints_totals(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "receipts.csv"
    prices = ("--prices", "{cpu_hour: 3600, gpu_hour: 36}")
    assert main_of("ledger", folders[0], "--out", str(out), *prices) == 0
    printed = capsys.readouterr().out
    for said in ("CC0-1.0", "wan-vace", "Apache-2.0", "core-s a pair", "3.02333"):  # 3 * 1 + 7/3 * 0.01
        assert said in printed, said
    with out.open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert [line["key"] for line in lines] == ShardSet(folders[0]).keys
    assert json.loads(lines[0]["given"]) == {"edit": {"prompt": "a red car", "seed": 7}}
    assert lines[0]["commercial"] == "yes"

    assert main_of("ledger", folders[1], "--format", "jsonl") == 0
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [value["parents"] for value in values] == [["a"]] * 3
    assert values[0]["models"][0]["license_from"] == "sample"

    assert main_of("ledger", folders[2], "--format", "json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["samples"] == 3
    assert sum(one["samples"] for one in value["commercial_use"]) == 3


def test_folders_are_plain_words_wherever_they_stand(
    folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = folders
    for words in (
        (first, second, "--format", "json"),
        (first, "--format", "json", second),
        ("--format=json", first, second),
        (f"[{first}, {second}]", "--format", "json"),
    ):
        for command in (("ledger",), ("stats", "--no-scores"), ("stats", "--scores", "false")):
            assert main_of(*command, *words) == 0
            assert json.loads(capsys.readouterr().out)["samples"] == 6, (command, words)


def test_faults_of_the_user_are_one_line(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (("--out", "all.txt"), "a receipt of all samples is a .jsonl or a .csv"),
        (("--prices", "{hour: 1}"), "'hour' is none of cpu_hour, gpu_hour"),
        (("--prices", "{cpu_hour: -1}"), "needs a price of 0 or more"),
    ):
        assert main_of("ledger", folders[0], *words) == 2
        assert said in capsys.readouterr().err
