"""A study of variants: trained and scored by the real commands, compared, and never done twice."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmark.__main__ import main
from benchmark.analysis.ablation import Cell, read_study
from benchmark.core.item import BenchmarkError
from shards.files import exclusive

TRAINING = {
    "data": {"batch_size": 2, "token_budget": 2048},
    "model": {
        "vae": {
            "class_path": "model.encoders.transform.TransformCodec",
            "init_args": {"keep": [[6, 1], [2, 0]]},
        },
        "dit": {"width": 48, "depth": 1, "heads": 2, "rope": {"dims": [4, 4, 8, 8]}},
        "media": {"min_area": 1536, "max_area": 1536, "frames": 9},
        "inference": {"steps": 1, "guidance": 1.0},
    },
    "optim": {"lr": 0.001, "warmup": 1},
    "train": {"steps": 2, "accelerator": "cpu", "num_val_samples": 1},
}


@pytest.fixture
def study_file(tmp_path: Path, pairs_dir: Path) -> Path:
    """Three arms, two seeds, two steps each; two of them start from one training."""
    training = json.loads(json.dumps(TRAINING))
    training["data"]["shards"] = [str(pairs_dir)]
    (tmp_path / "before.yaml").write_text(yaml.safe_dump(training))
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": training.pop("model")}))
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(training))
    (tmp_path / "longer.yaml").write_text("optim: {lr: 0.01}\n")
    (tmp_path / "apart.yaml").write_text("model: {sequence: {interleaved: false}}\n")
    study = {
        "train": str(tmp_path / "train.yaml"),
        "seeds": [0, 1],
        "arms": {
            "apart": {
                "about": "media behind the text",
                "config": [str(tmp_path / name) for name in ("model.yaml", "apart.yaml")],
            },
            "started": {"before": str(tmp_path / "before.yaml")},
            "longer": {"before": str(tmp_path / "before.yaml"), "config": [str(tmp_path / "longer.yaml")]},
        },
        "scores": {"pairs": {"shards": str(pairs_dir), "limit": 4}},
        "columns": [
            {"label": "inside", "score": "pairs", "group": "object_removal", "metric": "psnr_inside"},
        ],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


@pytest.mark.slow
def test_a_study_is_done_once_and_compared(
    study_file: Path, tmp_path: Path, command: Callable[..., object]
) -> None:
    out = tmp_path / "study"
    arguments = ("ablation", "--variants", study_file, "--out", out, "--jobs", 2)
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    table = (out / "study.md").read_text()
    assert table.count("\n") == 5 + 5 + 2  # arms, and losses of both steps
    assert "| apart: media behind the text |" in table
    found = json.loads((out / "study.json").read_text())["arms"]
    for name in ("apart", "started", "longer"):
        for number, seed in enumerate((0, 1)):
            scored = json.loads((out / name / f"seed-{seed}" / "pairs" / "summary.json").read_text())
            value = scored["table"]["object_removal"]["model"]["psnr_inside"]["value"]
            assert found[name]["cells"]["inside"]["values"][number] == value
        assert found[name]["tokens"] > 0
        losses = [
            [
                float(row["loss"])
                for row in csv.DictReader((out / name / f"seed-{s}" / "run/curve.csv").open())
            ]
            for s in (0, 1)
        ]
        assert [row["mean"] for row in found[name]["curve"]] == pytest.approx(np.mean(losses, 0).tolist())
    assert found["apart"]["cells"]["inside"]["gain"] == 0
    layouts = {
        name: json.loads((out / name / "seed-0" / "run" / "model.json").read_text())["sequence"][
            "interleaved"
        ]
        for name in ("apart", "started")
    }
    assert layouts == {"apart": False, "started": True}
    start = out / "before" / "before" / "seed-1"
    assert json.loads((start / "run.json").read_text())["config"]["train"]["seed"] == 1
    for name in ("started", "longer"):  # the same weights, trained once
        run = json.loads((out / name / "seed-1" / "run" / "run.json").read_text())
        assert run["config"]["train"]["init_from"] == str(start / "checkpoint")
    before = (out / "study.json").read_bytes()
    times = {p: p.stat().st_mtime for p in out.rglob("model.safetensors")}
    again = command(*arguments)
    assert again.returncode == 0, again.stderr
    assert (out / "study.json").read_bytes() == before
    assert times == {p: p.stat().st_mtime for p in out.rglob("model.safetensors")}


@pytest.mark.slow
def test_a_training_that_fails_is_named(
    study_file: Path, tmp_path: Path, command: Callable[..., object]
) -> None:
    sizes = yaml.safe_load((tmp_path / "model.yaml").read_text())
    sizes["model"]["dit"]["width"] = 47
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(sizes))
    study = yaml.safe_load(study_file.read_text())
    del study["arms"]["longer"]
    study["arms"]["started"] = {"config": [str(tmp_path / "model.yaml")]}  # fails as soon as the other one
    study_file.write_text(yaml.safe_dump(study, sort_keys=False))
    done = command("ablation", "--variants", study_file, "--out", tmp_path / "study", "--jobs", 2)
    assert done.returncode == 2
    assert "fit.log: the command failed" in done.stderr
    assert "width" in done.stderr
    assert not (tmp_path / "study" / "study.json").exists()


def test_gains_are_taken_seed_by_seed() -> None:
    gain, half = Cell((2.0, 4.0), (1.0, 2.0)).gain()
    assert gain == 1.5
    assert half == pytest.approx(12.706 * 0.5, rel=1e-3)  # t with one degree of freedom


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [1, 1]}, "seeds"),
        ({"arms": {"full": {}}}, "two arms"),
        ({"arms": {"full": {}, "other": {"mixtures": "x"}}}, "mixtures"),
        ({"arms": {"full": {}, "before": {}}}, "'before' is the folder"),
        ({"arms": {"full": {"before": "a/x.yaml"}, "other": {"before": "b/x.yaml"}}}, "the same name"),
        (
            {"columns": [{"label": "a", "score": "none", "group": "b", "metric": "c"}]},
            "no score 'none'",
        ),
    ],
)
def test_studies_that_say_nothing_are_refused(study_file: Path, change: dict[str, object], said: str) -> None:
    study_file.write_text(yaml.safe_dump(yaml.safe_load(study_file.read_text()) | change))
    with pytest.raises(BenchmarkError, match=said):
        read_study(study_file)


@pytest.mark.parametrize(("name", "arms"), [("ablations", 6), ("start", 2)])
def test_studies_that_come_along_can_be_read(name: str, arms: int) -> None:
    study = read_study(Path(f"configs/train/{name}/study.yaml"))
    assert len(study.arms) == arms
    for arm in study.arms.values():
        files = (*arm.config, arm.mixture or study.train, arm.before or study.train)
        assert all(Path(path).is_file() for path in files)


def test_a_study_names_its_files_relative_to_itself(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = yaml.safe_load(study_file.read_text())
    other = {"config": ["apart.yaml"], "mixture": "../mixture.yaml", "before": "before.yaml"}
    arms = {"full": {}, "apart": other}
    study_file.write_text(yaml.safe_dump(value | {"train": "train.yaml", "arms": arms}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = read_study(Path("..") / study_file.name)
    assert (study.train, study.arms["apart"].config) == ("../train.yaml", ("../apart.yaml",))
    assert study.arms["apart"].mixture == "../../mixture.yaml"
    assert study.arms["apart"].before == "../before.yaml"
    assert Path(study.train).samefile(tmp_path / "train.yaml")


def test_the_study_that_comes_along_is_the_default_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python -m benchmark", "ablation"])
    with exclusive("runs/study", "--test"):  # held: the study has been read when that is noticed
        assert main() == 2
    assert "another run is using it" in capsys.readouterr().err
