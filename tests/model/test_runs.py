"""What may change while a run lasts, and what a second stage takes from the first."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.config import MediaConfig, load_config
from model.training.config import FitConfig
from model.training.trainer import fit
from shards.errors import ConfigError


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a finished run saved."""
    return load_file(run / "checkpoint" / "model.safetensors")


def test_a_finished_run_is_made_longer(
    fit_config: FitConfig,
    tmp_path: Path,
    with_train: Callable[..., FitConfig],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # a rate that does not fall: the longer run's first steps are those of the shorter one
    constant = dataclasses.replace(fit_config.optim, lr=1e-3, final_lr=1e-3)
    config = dataclasses.replace(fit_config, optim=constant)
    short = with_train(config, steps=3, save_every=10)
    long = with_train(config, steps=5, save_every=1)
    fit(short, tmp_path / "grown")
    with caplog.at_level(logging.INFO):
        result = fit(long, tmp_path / "grown")
    assert (result["resumed_at"], result["steps"], result["reused"]) == (3, 5, False)
    assert "from step 3 on train.steps is 5, no longer 3" in caplog.text
    fit(long, tmp_path / "whole")
    ours, theirs = weights(tmp_path / "grown"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    curves = [(tmp_path / name / "curve.csv").read_bytes() for name in ("grown", "whole")]
    assert curves[0] == curves[1]
    # both changes are on record; the same command again finds nothing changed and nothing to do
    record = json.loads((tmp_path / "grown" / "run.json").read_text())
    assert [(c["field"], c["step"], c["before"], c["now"]) for c in record["changes"]] == [
        ("config.train.save_every", 3, 10, 1),
        ("config.train.steps", 3, 3, 5),
    ]
    assert record["model"]
    assert fit(long, tmp_path / "grown")["reused"]
    assert json.loads((tmp_path / "grown" / "run.json").read_text()) == record

    with pytest.raises(ConfigError, match=r"train\.steps: .*grown has taken 5 steps, more than 3"):
        fit(short, tmp_path / "grown")
    slower = dataclasses.replace(long, optim=dataclasses.replace(long.optim, lr=1e-4))
    with pytest.raises(
        ConfigError, match=r"holds another run: config\.optim\.lr is 0\.001 there and 0\.0001"
    ):
        fit(slower, tmp_path / "grown")
    assert json.loads((tmp_path / "grown" / "run.json").read_text()) == record


def test_a_mixture_gets_another_row_while_its_run_lasts(
    fit_config: FitConfig, shard_folder: Path, tmp_path: Path, with_train: Callable[..., FitConfig]
) -> None:
    """From the step on that was reached; a row that is gone, or another now, makes another run."""

    def mixed(steps: int, **rows: dict[str, object]) -> FitConfig:
        file = tmp_path / f"mixture-{steps}-{len(rows)}.json"
        file.write_text(
            json.dumps({"rows": {n: {"shards": [str(shard_folder)], **r} for n, r in rows.items()}})
        )
        data = dataclasses.replace(fit_config.data, mixture=str(file))
        return with_train(dataclasses.replace(fit_config, data=data), steps=steps, validate_every=10)

    plain: dict[str, object] = {"masked": False}
    masked: dict[str, object] = {"masked": True, "ratio": 2.0}
    fit(mixed(2, plain=plain), tmp_path / "run")
    assert fit(mixed(4, plain=plain, masked=masked), tmp_path / "run")["resumed_at"] == 2
    changes = json.loads((tmp_path / "run" / "run.json").read_text())["changes"]
    assert [(c["field"], c["before"]) for c in changes] == [("config.train.steps", 2), ("data.masked", None)]
    assert changes[1]["now"]["ratio"] == 2.0
    with pytest.raises(ConfigError, match=r"holds another run: data\.plain is \{.* there and None here"):
        fit(mixed(5, masked=masked), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another run: data\.masked\.ratio is 2\.0 there and 3\.0 here"):
        fit(mixed(6, plain=plain, masked={**masked, "ratio": 3.0}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another run: data\.masked\.max_visits is None there and 9 here"):
        fit(mixed(7, plain=plain, masked={**masked, "max_visits": 9}), tmp_path / "run")


def test_a_second_stage_has_other_media_times_and_positions(
    fit_config: FitConfig, tmp_path: Path, with_train: Callable[..., FitConfig]
) -> None:
    fit(with_train(fit_config, steps=2, validate_every=10), tmp_path / "first")
    media = MediaConfig(min_area=64 * 80, max_area=64 * 80, frames=5)
    changes = {"media": media, "flow": {"shift": 3.0}, "rope": {"ntk": [1.0, 1.0, 2.0, 2.0]}}
    second = with_train(
        dataclasses.replace(fit_config, model=type(fit_config.model)()),
        steps=2,
        init_from=str(tmp_path / "first"),
        **changes,
    )
    longer = dataclasses.replace(second, data=dataclasses.replace(second.data, token_budget=600))
    assert fit(longer, tmp_path / "second")["steps"] == 2
    first, made = (load_config(tmp_path / n / "checkpoint" / "config.json") for n in ("first", "second"))
    assert made.media == media
    assert made.flow == dataclasses.replace(first.flow, shift=3.0)
    assert made.network.rope == dataclasses.replace(first.network.rope, ntk=(1.0, 1.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flow": {"prediction": "x1"}}, r"train\.flow\.prediction: the weights were trained with velocity"),
        ({"flow": {"shfit": 3.0}}, r"train\.flow.*shfit"),
        ({"flow": {"shift": -1.0}}, r"train\.flow.*shift"),
        ({"rope": {"dims": [2, 2, 6, 6]}}, r"train\.rope\.dims: the weights were trained with"),
    ],
)
def test_what_the_weights_mean_is_theirs(
    fit_config: FitConfig,
    stage_one: Path,
    with_train: Callable[..., FitConfig],
    changes: dict[str, object],
    message: str,
    tmp_path: Path,
) -> None:
    second = dataclasses.replace(fit_config, model=type(fit_config.model)())
    with pytest.raises(ConfigError, match=message):
        fit(with_train(second, init_from=str(stage_one), **changes), tmp_path / "second")
    assert not (tmp_path / "second").exists()


@pytest.fixture(scope="module")
def stage_one(editor: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to go on from."""
    folder = tmp_path_factory.mktemp("stage_one")
    editor.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder
