"""Class paths of before are understood in every file that names classes."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.metrics.config import read_metrics
from curation.engine.task_config import load_config
from model.cli import main as model_main
from model.config import load_config as load_model
from model.extras.config import ExtrasConfig
from model.flow.flow_matching import FlowConfig
from model.inference.bundled import BUNDLED
from model.training.run_dir import claim
from shards.aliases import COMMANDS, MOVED, SETTINGS, VALUES, current, renewed
from shards.errors import ConfigError


@pytest.mark.parametrize("old", MOVED)
def test_every_old_name_leads_to_a_class(old: str) -> None:
    module, _, name = current(old).rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    assert inspect.isclass(kind)
    assert kind.__module__ == module
    assert current(current(old)) == current(old)


def test_only_class_paths_are_translated() -> None:
    old, new = next(iter(MOVED.items()))
    value = {"name": old, "parts": [{"class_path": old, "init_args": {"model": {"class_path": old}}}, old]}
    assert renewed(value) == {
        "name": old,
        "parts": [{"class_path": new, "init_args": {"model": {"class_path": new}}}, old],
    }
    assert value["parts"][0] == {"class_path": old, "init_args": {"model": {"class_path": old}}}
    assert current("model.encoders.text.MiniLM") == "model.encoders.text.MiniLM"


def test_a_metrics_file_of_before_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.yaml").write_text("metrics: [{class_path: benchmark.metrics.hit.EditHit}]")
    (metric,) = read_metrics(tmp_path / "metrics.yaml", "corrected")
    assert metric.name == "edit_hit"


def test_a_task_file_of_before_is_read(tmp_path: Path) -> None:
    config = {
        "class_path": "curation.tasks.camera_change.CameraChange",
        "init_args": {"captioner": {"class_path": "curation.describing.Measured"}},
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(config))
    read = load_config("camera_change", tmp_path / "task.yaml")
    assert read["class_path"] == config["class_path"]
    captioner = read["init_args"]["captioner"]["class_path"]
    assert captioner == current("curation.describing.Measured") != "curation.describing.Measured"


def test_settings_of_a_checkpoint_of_before_are_read(tmp_path: Path) -> None:
    old = {
        "codec": {"class_path": "model.encoders.transform.TransformCodec", "init_args": {"block": 4}},
        "text": {"class_path": "model.encoders.text.MiniLM", "init_args": {"path": "words"}},
        "dit": {"qkv_bias": True, "copy_prior": [0, 1, 2, 3], "place_prior": 1.5, "place_heads": 1},
        "flow": {"prediction": "clean", "mean": -2.0, "std": 1.5, "floor": 0.5},
        "inference": {"carry_over": True, "agree": 3.0, "differ": 5.0},
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    config = load_model(tmp_path / "config.json")
    assert (config.vae, config.text_encoder) == (old["codec"], old["text"])
    assert config.flow == FlowConfig(prediction="x1", logit_mean=-2.0, logit_std=1.5, min_remaining=0.5)
    assert config.extras == ExtrasConfig((0, 1, 2, 3), 1.5, 1, True, 3.0, 5.0)
    moved = [new for new in SETTINGS.values() if new.startswith("extras.")]
    assert len(moved) == len(dataclasses.fields(config.extras))
    shipped = load_model(BUNDLED / "nano" / "config.json")
    assert (shipped.extras.copy_bias, shipped.extras.detail_transfer) == ((0.0, 10.0, 3.0, 3.0), True)


def test_a_run_whose_data_is_called_like_an_old_setting_goes_on(tmp_path: Path) -> None:
    identity = {"config": {"data": {"flip_prob": 0.5}}, "data": {"flip": {"ratio": 1.0}}}
    claim(tmp_path / "run", identity)
    held = {**identity, "config": {"data": {"flip": 0.5}}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(held))
    claim(tmp_path / "run", identity)
    with pytest.raises(ConfigError, match=r"config\.data\.flip_prob is 0\.5 there and 0\.0 here"):
        claim(tmp_path / "run", {**identity, "config": {"data": {"flip_prob": 0.0}}})


def test_a_setting_within_a_renamed_one_is_refused_with_its_new_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        model_main(["fit", "--run", "r", "--model.codec.class_path", "model.encoders.wan.WanVAE"])
    assert "model.codec.class_path: is called model.vae.class_path now" in capsys.readouterr().err


def write_fit(path: Path, setting: str, value: Any) -> str:
    """Write a training file with one setting; returns what stands before its name on the command line."""
    group, name = setting.split(".")
    held: dict[str, Any] = {group: {name: value}}
    inside = group in ("dit", "flow", "inference")
    path.write_text(yaml.safe_dump({"run": "r", **({"model": held} if inside else held)}))
    return "model." if inside else ""


@pytest.mark.parametrize("old", SETTINGS)
def test_an_old_setting_that_a_person_gives_is_refused_with_its_new_name(
    old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = write_fit(tmp_path / "fit.yaml", old, 1)
    for arguments in (["--config", str(tmp_path / "fit.yaml")], ["--run", "r", f"--{inside}{old}", "1"]):
        with pytest.raises(SystemExit):
            model_main(["fit", *arguments])
        assert f"{inside}{old}: is called {inside}{SETTINGS[old]} now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "old"), [(setting, old) for setting in VALUES for old in VALUES[setting]]
)
def test_an_old_value_that_a_person_gives_is_refused_with_its_new_name(
    setting: str, old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (group, name), new = setting.split("."), VALUES[setting][old]
    assert renewed({"config": {group: {name: old}}}) == {"config": {group: {name: new}}}
    assert renewed({group: {name: new}}) == {group: {name: new}}
    inside = write_fit(tmp_path / "fit.yaml", setting, old)
    for arguments in (["--config", str(tmp_path / "fit.yaml")], ["--run", "r", f"--{inside}{setting}", old]):
        with pytest.raises(SystemExit):
            model_main(["fit", *arguments])
        assert f"{inside}{setting}: {old} is called {new} now" in capsys.readouterr().err


@pytest.mark.parametrize("old", COMMANDS)
def test_an_old_command_is_refused_with_its_new_name(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        model_main([old])
    assert f"{old}: is called {COMMANDS[old]} now" in capsys.readouterr().err
