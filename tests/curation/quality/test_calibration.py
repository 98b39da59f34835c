"""Thresholds from labels: what they promise holds on samples that they were not made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from curation.__main__ import main
from curation.quality.selection.calibration import calibrate
from curation.quality.selection.labels import (
    Label,
    LabelError,
    LabelFile,
    LabelSet,
    cohens_kappa,
    read_labels,
)
from curation.quality.selection.pricing import rules_at
from curation.quality.selection.rules import read_rules
from curation.quality.selection.thresholds import Cases, Signals, fit_keeping, fit_precise, folds
from shards.errors import ConfigError, SettingError
from shards.reader import ShardSet
from shards.scores import SAMPLE_NUMBER, About, write_scores
from shards.writer import Item, write_shards

SEEN = ("blur", "colour")  # kinds of bad samples, each seen by the score of its number


def made(clean: int, each: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Ten scores of samples without meaning, of which two see a kind each; kinds, "" for clean."""
    rng = np.random.default_rng(seed)
    kinds = [""] * clean + [kind for kind in (*SEEN, "wrong") for _ in range(each)]
    values = rng.normal(size=(10, len(kinds)))
    for row, kind in enumerate(SEEN):
        values[row, [k == kind for k in kinds]] -= 6
    values[1] *= -1  # lower is better
    names = ["sharpness", "shift", *(f"other{n}" for n in range(8))]
    return dict(zip(names, values, strict=True)), np.array([not k for k in kinds]), kinds


def cases_of(kinds: list[str], scenes: list[str] | None = None, task: str = "removal") -> Cases:
    """What is known of samples of these kinds, "" for clean; each of a scene of its own."""
    clean, tasks = np.array([not kind for kind in kinds]), np.full(len(kinds), task)
    shown = np.array(scenes or [str(number) for number in range(len(kinds))])
    return Cases.of(clean, [frozenset((kind,) if kind else ()) for kind in kinds], tasks, shown)


BETTER = {"sharpness": "higher", "shift": "lower"} | {f"other{n}": "neither" for n in range(8)}


def test_new_clean_samples_pass_and_new_bad_ones_do_not() -> None:
    kept, caught = [], {kind: [] for kind in (*SEEN, "wrong")}
    for seed in range(3):
        values, _, kinds = made(60, 20, seed)
        signals = Signals.of(values, BETTER)
        fit = fit_keeping(signals.values, cases_of(kinds), 0.95)
        rules = signals.rules(fit.of_task("removal"))
        assert set(rules) == {"sharpness", "shift"}  # nothing without meaning
        assert rules["sharpness"].max is None is rules["shift"].min
        new, fresh, kinds = made(500, 100, seed + 100)
        passed = fit.passing(Signals.of(new, BETTER).values, np.full(len(fresh), "removal"))
        kept.append(passed[fresh].mean())
        for kind in caught:
            caught[kind].append(1 - passed[[k == kind for k in kinds]].mean())
    assert np.mean(kept) > 0.945
    assert all(np.mean(caught[kind]) > 0.98 for kind in SEEN)
    assert np.mean(caught["wrong"]) < 0.1


def test_many_rules_together_lose_no_more_than_may_be_lost() -> None:
    """Six kinds of bad samples, each far from the clean ones in a score of its own."""
    rng = np.random.default_rng(0)
    kept, kinds = [], [""] * 40 + [f"kind {row}" for row in range(6) for _ in range(12)]
    for _ in range(3):
        values = rng.normal(size=(6, 40 + 6 * 12))
        for row in range(6):
            values[row, 40 + 12 * row : 52 + 12 * row] -= 8
        fit = fit_keeping(values, cases_of(kinds), 0.95)
        assert np.isfinite(fit.plain).all()
        kept.append(fit.passing(rng.normal(size=(6, 2000)), np.full(2000, "removal")).mean())
    assert np.mean(kept) > 0.97  # at the worst clean values it is 0.90


def test_each_reason_has_its_rule_though_most_bad_samples_are_of_another() -> None:
    """A reason of six samples among a hundred of others; of 40 clean samples none may be lost for nothing."""
    rng = np.random.default_rng(1)
    kinds = [""] * 40 + ["common"] * 100 + ["rare"] * 6
    values = rng.normal(size=(2, len(kinds)))
    values[0, 40:140] -= 8
    values[1, 140:] -= 8
    fit = fit_keeping(values, cases_of(kinds), 0.95)
    assert (fit.plain > -8).all()  # both have one, nearer to the clean samples than the bad ones are
    assert (fit.plain < values[:, :40].min(axis=1)).all()


def test_scores_without_meaning_seldom_make_a_rule() -> None:
    """Twenty of them, 60 clean and 20 bad samples; where all that pays is taken, each run has a rule."""
    with_rules = 0
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=(20, 80))
        clean = np.arange(80) < 60
        with_rules += bool(np.isfinite(rules_at(values, clean, ~clean[None], 1.0)).any())
    assert with_rules <= 5


def test_scores_that_know_the_scene_alone_are_not_taken_for_signals() -> None:
    """Each scene has a value of its own, and ten samples of one kind: on new scenes it says nothing."""
    rng = np.random.default_rng(0)
    shown = [number // 10 for number in range(200)]
    kinds = ["" if scene < 10 else "bad" for scene in shown]
    values = rng.normal(size=(8, 20))[:, shown] + 0.01 * rng.normal(size=(8, 200))
    cases = cases_of(kinds, [str(scene) for scene in shown])
    for train, test in folds(cases, 0):
        assert not {*cases.scenes[train]} & {*cases.scenes[test]}
    strict = fit_keeping(values, cases, 0.95)
    loose = fit_keeping(values, cases_of(kinds), 0.95)
    assert strict.price > loose.price


def test_a_null_score_catches_nothing_and_says_nothing() -> None:
    values, _, kinds = made(60, 20, 0)
    values["sharpness"][[k == "blur" for k in kinds]] = np.nan
    signals = Signals.of(values, BETTER)
    fit = fit_keeping(signals.values, cases_of(kinds), 0.95)
    assert "sharpness" not in signals.rules(fit.of_task("removal"))


def test_a_precision_is_reached_with_as_few_lost_as_it_needs() -> None:
    values, clean, kinds = made(60, 20, 3)
    mixed = np.array([k != "wrong" for k in kinds])  # what no score sees is left out
    signals = Signals.of({name: column[mixed] for name, column in values.items()}, BETTER)
    cases = cases_of([k for k in kinds if k != "wrong"])
    passed = fit_precise(signals.values, cases, 0.95).passing(signals.values, cases.tasks)
    assert clean[mixed][passed].mean() >= 0.95
    assert passed[clean[mixed]].mean() > 0.9


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    """120 samples with the scores of `made(60, 20)`, in the order of their keys."""
    folder = tmp_path_factory.mktemp("pool")
    (sample, files), *_ = make_items(folder, 1, 1, 16, 16, heldout=0)
    items = [(sample.model_copy(update={"key": f"s-{n:04d}"}), files) for n in range(120)]
    write_shards(folder / "shards", items)
    for name, column in made(60, 20, 0)[0].items():
        about = About(made_by="test", better=BETTER[name])  # type: ignore[arg-type]
        write_scores(folder / "shards", name, column, about)
    # which tells the kinds apart, since they lie one after the other, and is no measure
    write_scores(folder / "shards", "like", np.arange(120), About(made_by="test", unit=SAMPLE_NUMBER))
    return folder / "shards"


def labels_of(pool: Path, out: Path) -> Path:
    """What two people say: Ada of all, Ben of the first 80, of which he turns a clean one and a bad one."""
    kinds = made(60, 20, 0)[2]
    labels = [Label(key="nobody-knows", keep=True, by="Ada")]
    for number, (key, kind) in enumerate(zip(ShardSet(pool).keys, kinds, strict=True)):
        labels.append(Label(key=key, keep=not kind, reasons=(kind,) if kind else (), by="Ada"))
        if number < 80:
            keep = bool(kind) if number in (0, 60) else not kind
            labels.append(Label(key=key, keep=keep, reasons=() if keep else ("odd",), by="Ben"))
    out.write_text("".join(f"{label.model_dump_json()}\n" for label in labels))
    with out.open("a") as more:
        more.write('{"key": "s-0001"}\n{"key": "s-00')
    return out


def test_the_report_says_what_labels_scores_and_rules_are_worth(pool: Path, tmp_path: Path) -> None:
    found, labelled = calibrate(pool, labels_of(pool, tmp_path / "labels.jsonl"))
    assert found.labelled == {
        "used": 118, "clean": 59, "bad": 59, "disputed": 2, "unknown keys": 1, "people": 2
    }  # fmt: skip
    assert sum(found.faults.values()) == 2
    (pair,) = found.agreement
    assert (pair["first"], pair["second"], pair["samples"]) == ("Ada", "Ben", 80)
    assert pair["kappa"] == pytest.approx((78 / 80 - 0.625) / 0.375)
    assert found.reached
    assert found.outcome.recall.low is not None
    assert found.outcome.recall.low < 0.95 < found.outcome.recall.share + 1e-9
    assert found.caught_by_reason["blur"].share > 0.9
    assert found.caught_by_reason["wrong"].share < 0.2
    assert found.signals["sharpness"].rules.scores == ("sharpness",)
    assert found.signals["sharpness"].chosen
    assert found.signals["other3"].rules.scores == ()
    assert "like" not in found.signals
    kept = found.rules.rules["sharpness"].passes(labelled.values["sharpness"])
    assert 0.5 < found.retained < kept.mean()


def test_tasks_have_thresholds_of_their_own(tmp_path: Path, make_items: Callable[..., list[Item]]) -> None:
    """Half of the samples are of a task whose clean ones have the sharpness of the other's blurred ones."""
    values, _, kinds = made(60, 20, 1)
    (sample, files), *_ = make_items(tmp_path, 1, 1, 16, 16, heldout=0)
    styled = np.arange(120) % 2 == 0
    items = []
    labels = LabelSet()
    for n, kind in enumerate(kinds):
        task = "style" if styled[n] else "removal"
        items.append((sample.model_copy(update={"key": f"s-{n:04d}", "task": task}), files))
        labels.add(Label(key=f"s-{n:04d}", keep=not kind, reasons=(kind,) if kind else (), by="Ada"))
    write_shards(tmp_path / "shards", items)
    sharpness = np.where(styled, values["sharpness"] - 6, values["sharpness"])
    write_scores(tmp_path / "shards", "sharpness", sharpness, About(made_by="test", better="higher"))
    found, _ = calibrate(tmp_path / "shards", labels)
    assert found.caught_by_reason["blur"].share > 0.9  # a common threshold would catch half of them
    assert found.rules.rules == {}
    bounds = {task: found.rules.of(task)["sharpness"].min for task in ("style", "removal")}
    assert bounds["style"] == pytest.approx(bounds["removal"] - 6, abs=2)
    assert found.rules.of("other") == {}


def test_the_command_leaves_rules_that_the_filter_reads(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, out = labels_of(pool, tmp_path / "labels.jsonl"), tmp_path / "calibration"
    words = ["calibrate", str(pool), "--labels", str(labels), "--out", str(out), "--precision", "0.7"]
    monkeypatch.setattr("sys.argv", ["curation", *words])
    assert main() == 0
    printed = capsys.readouterr().out
    assert "other3: does not tell clean from bad (118 measured, AUC" in printed
    assert "Ada and Ben: 80 samples, 98 % alike, Cohen's kappa 0.93" in printed
    assert set(read_rules(out / "rules.yaml").scores) == {"sharpness", "shift"}
    assert yaml.safe_load((out / "rules.yaml").read_text()).keys() == {"rules"}
    assert json.loads((out / "calibration.json").read_text())["labelled"]["bad"] == 59
    assert (out / "calibration.svg").read_text().count("AUC") == 10
    monkeypatch.setattr("sys.argv", ["curation", "filter", str(pool), "--rules", str(out / "rules.yaml"),
                                     "--out", str(tmp_path / "kept")])  # fmt: skip
    assert main() == 0
    assert 60 < len(ShardSet(tmp_path / "kept")) < 90


def test_too_few_labels_and_targets_that_cannot_be(pool: Path, tmp_path: Path) -> None:
    few = LabelSet()
    for number in range(30):
        few.add(Label(key=f"s-{number:04d}", keep=number % 4 > 0))
    with pytest.raises(LabelError, match=r"needs 10 clean and 10 bad samples, labelled are: 22 clean, 8 bad"):
        calibrate(pool, few)
    with pytest.raises(SettingError, match="choose one of the two"):
        calibrate(pool, few, precision=0.9, keep_clean=0.9)
    with pytest.raises(SettingError, match=r"--precision 95: a share"):
        calibrate(pool, few, precision=95)
    with pytest.raises(ConfigError, match=r"--labels .*: No such file"):
        read_labels(tmp_path / "none.jsonl")


def test_labels_are_taken_back_and_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    file = LabelFile(tmp_path / "labels.jsonl")
    file.add(Label(key="a", keep=True, by="Ada"))
    file.add(Label(key="a", keep=False, reasons=("blur",), by="Ada"))
    file.add(Label(key="b", keep=True, by="Ada"))
    file.add(Label(key="b", keep=False, by="Ben"))
    file.add(Label(key="b", keep=None, by="Ada"))
    file.close()
    assert (tmp_path / "labels.jsonl").read_bytes().count(b"\n") == 5  # nothing is taken out of the file
    with (tmp_path / "labels.jsonl").open("ab") as torn:
        torn.write(b'{"key": "c", "ke')
    again = LabelFile(tmp_path / "labels.jsonl")
    again.add(Label(key="d", keep=True, by="Ben"))
    again.close()
    read = read_labels(tmp_path / "labels.jsonl")
    assert {key: {by: label.keep for by, label in of.items()} for key, of in read.votes.items()} == {
        "a": {"Ada": False},
        "b": {"Ben": False},
        "d": {"Ben": True},
    }
    assert read.votes["a"]["Ada"].reasons == ("blur",)
    assert read.faults.total() == 1


def test_kappa_is_what_cohen_says() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.7 alike, 0.5 by chance
    answers = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohens_kappa(answers) == pytest.approx(0.4)
    assert cohens_kappa([(True, True)] * 3) is None
