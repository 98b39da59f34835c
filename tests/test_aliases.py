"""Class paths of before are understood in every file that names classes."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from benchmark.metrics.config import read_metrics
from curation.engine.executor import load_config
from shards.aliases import MOVED, current, renewed


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
