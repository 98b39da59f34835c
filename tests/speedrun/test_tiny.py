"""The files of the tiny speedrun say what their readers understand, and fit one another."""

from __future__ import annotations

from pathlib import Path

import yaml

from benchmark.analysis.ablation import read_study
from benchmark.metrics.config import read_metrics
from curation.engine.run_all import read_runs
from curation.engine.task_config import build, load_config
from model.data.mixture import read_mixture
from shards.resources import config_root

TINY = config_root() / "speedrun" / "tiny"


def test_what_is_trained_on_is_what_is_curated_imported_and_gated() -> None:
    """A name that one file has and another has not would end a run after minutes."""
    settings = yaml.safe_load((TINY / "settings.yaml").read_text())
    curated = read_runs(TINY / "curation.yaml")
    imported = yaml.safe_load((TINY / "imports.yaml").read_text())
    data = {f"curated/{run.name}" for run in curated} | {f"imported/{one['name']}" for one in imported}
    graded = {f"data/{one}" for one in settings["graded"]}
    assert {*settings["graded"], *settings["calibrate_on"], *settings["benches"]} <= data
    assert {one for one in data if one.startswith("imported/")} <= set(settings["graded"])
    everything, clean = (read_mixture(TINY / f"mixture_{name}.yaml").rows for name in ("all", "clean"))
    assert {folder for row in everything.values() for folder in row.shards} == {f"data/{one}" for one in data}
    for name, row in everything.items():
        gated = tuple(one.replace("data/", "data/clean/") if one in graded else one for one in row.shards)
        assert clean[name].shards == gated
        assert (clean[name].ratio, clean[name].tasks) == (row.ratio, row.tasks)


def test_every_curated_run_can_be_built() -> None:
    for file in ("curation.yaml", "public.yaml"):
        for run in read_runs(TINY / file):
            assert run.config is not None
            assert build(load_config(run.task, run.config)).name == run.task


def test_the_arms_of_the_study_differ_in_the_pairs_of_stage_2_alone() -> None:
    study = read_study(TINY / "study" / "study.yaml")
    assert len(study.seeds) == 3
    one, two = study.arms["all"], study.arms["all_then_clean"]
    assert Path(study.train).samefile(TINY / "stage2.yaml")
    assert one.before == two.before
    assert Path(str(one.before)).samefile(TINY / "stage1.yaml")
    assert one.config == two.config == ()
    assert Path(str(one.mixture)).samefile(TINY / "mixture_all.yaml")
    assert two.mixture is None
    assert yaml.safe_load((TINY / "stage2.yaml").read_text())["data"]["mixture"] == "mixture_clean.yaml"
    metrics = {metric.name for metric in read_metrics(study.scores["styles"].metrics, "corrected")}
    assert {column.metric for column in study.columns} <= metrics
