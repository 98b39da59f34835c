"""Filtering by stored scores: what is kept, why the rest is not, and that an interrupted run goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation.__main__ import main
from curation.quality.selection.filter import NothingKeptError, filter_shards
from curation.quality.selection.retention import Share, read_retention, samples_cell
from curation.quality.selection.rules import Rule, Rules, read_rules
from shards.errors import ConfigError, SettingError
from shards.location import ShardError
from shards.reader import ShardSet
from shards.scores import About, open_scores, write_scores
from shards.verify import verify
from shards.writer import Item, write_shards

SHARP = About(made_by="grade sharpness 1", better="higher")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> list[Item]:
    """Eight samples, two held out and every other with a mask in its text; one score of their own."""
    return [
        (sample.model_copy(update={"scores": {"residual": 0.1}}), files)
        for sample, files in make_items(tmp_path_factory.mktemp("media"), 8, 2, 32, 48, heldout=2)
    ]


@pytest.fixture
def graded(tmp_path: Path, items: list[Item]) -> Path:
    """The samples in shards, keys 0 to 7, a sharpness of 0 to 7 (3: null), and blur."""
    write_shards(tmp_path / "shards", items, max_samples=3)
    keys = ShardSet(tmp_path / "shards").keys
    numbers = np.array([int(key.split("-")[1], 16) for key in keys], np.float32)
    write_scores(tmp_path / "shards", "sharpness", np.where(numbers == 3, np.nan, numbers), SHARP)
    write_scores(tmp_path / "shards", "blur", 10 - numbers, About(made_by="grade blur 1", better="lower"))
    return tmp_path / "shards"


def numbers(folder: Path, split: str | None = None) -> list[int]:
    return sorted(int(key.split("-")[1], 16) for key in ShardSet(folder, split).keys)


def test_members_are_copied_and_scores_and_the_step_are_merged(graded: Path, tmp_path: Path) -> None:
    rules = Rules(rules={"sharpness": Rule(min=2.5), "blur": Rule(max=9)})
    retention = filter_shards(graded, rules, tmp_path / "out", max_samples=2)
    assert numbers(tmp_path / "out") == [3, 4, 5, 6, 7]
    assert numbers(tmp_path / "out", "heldout") == [6, 7]
    assert verify(tmp_path / "out").faults == []
    before, after = ShardSet(graded), ShardSet(tmp_path / "out")
    for record in after:
        old = before[record.key]
        assert all(record.bytes(name) == old.bytes(name) for name in old.sample.media)
        number = int(record.key.split("-")[1], 16)
        sharpness = None if number == 3 else number
        assert record.sample.scores == {"residual": 0.1, "sharpness": sharpness, "blur": 10 - number}
        assert record.sample.provenance.steps[-1].stage == "filter"
        assert record.sample.provenance.steps[-1].config == rules.config
        assert record.sample.provenance.steps[:-1] == old.sample.provenance.steps
    scores = open_scores(tmp_path / "out")  # to be chosen by again, without a new measurement
    assert scores.stored == ("blur", "sharpness")
    assert scores.names == ("blur", "residual", "sharpness")
    assert scores.about("sharpness") == SHARP
    assert [int(n) for n in 10 - scores.column("blur")] == [int(k.split("-")[1], 16) for k in after.keys]
    assert (retention.total.candidates, retention.total.retained) == (8, 5)


def test_what_is_rejected_is_named_with_its_rules_and_counted(graded: Path, tmp_path: Path) -> None:
    rules = Rules(rules={"sharpness": Rule(min=2.5, missing="drop"), "blur": Rule(max=9.5)})
    filter_shards(graded, rules, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    told = {int(line["key"].split("-")[1], 16): (line["rule"], line["value"], line["also"]) for line in lines}
    assert told == {
        0: ("sharpness >= 2.5", 0.0, ["blur <= 9.5"]),
        1: ("sharpness >= 2.5", 1.0, []),
        2: ("sharpness >= 2.5", 2.0, []),
        3: ("sharpness >= 2.5", None, []),
    }
    report = read_retention(tmp_path / "out")
    assert report.tasks == {"video": {"object_removal": Share(candidates=8, retained=4)}}
    assert report.splits["heldout"] == Share(candidates=2, retained=2)
    assert len(report.sources) == 8
    assert report.sources["square0.mp4"] == Share(candidates=1, retained=0)
    sharpness, blur = report.criteria["sharpness >= 2.5"], report.criteria["blur <= 9.5"]
    assert (sharpness.failed, sharpness.alone, sharpness.missing) == (4, 3, 1)
    assert (blur.failed, blur.alone, blur.missing) == (1, 0, 0)
    text = (tmp_path / "out" / "retention.md").read_text()
    assert "| video | object_removal | 4(8*) | 8 | 4 | 50.0 % |" in text


def test_rules_of_a_task_take_the_place_of_those_of_all(graded: Path, tmp_path: Path) -> None:
    rules = Rules(rules={"sharpness": Rule(min=5)}, tasks={"object_removal": {"sharpness": Rule(max=1)}})
    filter_shards(graded, rules, tmp_path / "other")
    assert numbers(tmp_path / "other") == [0, 1, 3]
    without = Rules(rules={"sharpness": Rule(min=5)}, tasks={"object_removal": {"sharpness": None}})
    assert filter_shards(graded, without, tmp_path / "none").total.retained == 8


def test_the_same_rules_write_nothing_again_and_others_what_they_change(graded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def tars() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}

    filter_shards(graded, Rules(rules={"sharpness": Rule(min=2)}), out, max_samples=2)
    before = tars()
    (out / "manifest.jsonl").unlink()  # as if it had been killed before its end
    filter_shards(graded, Rules(rules={"sharpness": Rule(min=2)}), out, max_samples=2)
    assert tars() == before
    half = next(out.glob("train-*.index.json"))
    half.unlink()  # killed between a tar and its index
    (out / ".train-000001.374256a9.tmp.tar").write_bytes(b"half")
    filter_shards(graded, Rules(rules={"sharpness": Rule(min=2)}), out, max_samples=2)
    assert tars().keys() == before.keys()
    assert not list(out.glob(".*"))
    assert verify(out).faults == []
    filter_shards(graded, Rules(rules={"sharpness": Rule(min=4)}), out, max_samples=2)
    assert numbers(out) == [3, 4, 5, 6, 7]
    assert verify(out).faults == []
    assert len(list(out.glob("*.tar"))) == len(list(out.glob("*.index.json"))) == 3  # none of other rules


def test_nothing_of_others_is_overwritten(graded: Path, tmp_path: Path, items: list[Item]) -> None:
    rules = Rules(rules={"sharpness": Rule(min=2)})
    write_shards(tmp_path / "others", items)
    with pytest.raises(SettingError, match="is the folder that is filtered"):
        filter_shards(graded, rules, graded)
    with pytest.raises(SettingError, match="shards that no filter made"):
        filter_shards(graded, rules, tmp_path / "others")
    assert numbers(tmp_path / "others") == numbers(graded) == list(range(8))


def test_a_score_that_is_not_stored_or_rules_that_nothing_passes(graded: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"no score 'psnr', .* `python -m curation grade"):
        filter_shards(graded, Rules(rules={"psnr": Rule(min=2)}), tmp_path / "out")
    with pytest.raises(NothingKeptError, match=r"no sample passes the rules; .*rejected\.jsonl"):
        filter_shards(graded, Rules(rules={"blur": Rule(min=99)}), tmp_path / "out")
    assert len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()) == 8
    assert read_retention(tmp_path / "out").total == Share(candidates=8, retained=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: {psnr: {minimum: 3}}", "rules.psnr.minimum: Extra inputs"),
        ("rules: {psnr: {}}", "rules.psnr: a rule has a min, a max or both"),
        ("rules: {psnr: {min: 3, max: 2}}", "min 3 is above max 2"),
        ("rules: {psnr: {min: .nan}}", "finite number"),
        ("rules: {psnr: {min: high}}", "rules.psnr.min: Input should be a valid number"),
        ("rules: {psnr: {min: 1, missing: no}}", "rules.psnr.missing: Input should be 'keep' or 'drop'"),
        ("tasks: {}", "no rules"),
        ("rules: [", "not YAML"),
    ],
)
def test_rules_that_cannot_be_read_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        read_rules(tmp_path / "rules.yaml")
    assert str(error.value).startswith(str(tmp_path / "rules.yaml"))


def test_the_command_prints_the_report_and_again(
    graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["curation", *words])
        status = main()
        return status, *capsys.readouterr()

    (tmp_path / "rules.yaml").write_text("rules:\n  sharpness: {min: 2, missing: drop}\n")
    status, printed, _ = run("filter", str(graded), "--rules", str(tmp_path / "rules.yaml"), "--report_only")
    assert status == 0
    assert "sharpness >= 2" in printed
    assert not list((tmp_path / "shards-filtered").glob("*.tar"))
    assert run("filter", str(graded), "--rules", str(tmp_path / "rules.yaml"))[0] == 0
    assert numbers(tmp_path / "shards-filtered") == [2, 4, 5, 6, 7]
    status, again, _ = run("retention", str(tmp_path / "shards-filtered"))
    assert status == 0
    assert again in printed
    assert run("filter", str(graded))[0] == 2
    status, _, fault = run("retention", str(graded))
    assert status == 2
    assert "retention.json: missing; `python -m curation filter` writes it" in fault


def test_counts_are_written_as_in_table_1() -> None:
    pairs = {(55_711, 2_000_000): "56K(2M*)", (245_986, 1_200_000): "246K(1.2M*)", (8_802, 8_802): "8.8K"}
    for (retained, candidates), cell in pairs.items():
        assert samples_cell(Share(candidates=candidates, retained=retained)) == cell
