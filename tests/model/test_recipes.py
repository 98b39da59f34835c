"""The training files of the real sizes: read from any folder, and the paper's recipe (section A.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.cli import fit
from model.config import ModelConfig
from model.data.mixture import read_mixture
from model.training.config import OptimConfig
from shards.command import Parser
from shards.resources import config_root


def read(name: str) -> Any:
    """The settings that `model fit --config configs/train/<name>.yaml` would run with."""
    parser = Parser()
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(fit)
    return parser.instantiate(parser.parse_args(["--config", f"configs/train/{name}.yaml"]))


@pytest.mark.parametrize(("name", "width"), [("2b", 2048), ("small", 768), ("nano", 256)])
def test_a_size_is_read_from_any_folder(
    name: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read(name)
    assert isinstance(settings.model, ModelConfig)
    if settings.train.init_from is None:  # else the model is the checkpoint's
        assert settings.model.dit.width == width
        assert len(read_mixture(settings.data.mixture).rows) > 20
        assert Path(settings.data.mixture).resolve().parent == config_root() / "train" / "mixtures"


def test_the_2b_is_trained_as_the_paper_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read("2b")
    assert settings.optim == OptimConfig()  # whose defaults are A.1's
    assert (settings.optim.lr, settings.optim.final_lr, settings.optim.warmup) == (8e-6, 1e-6, 2000)
    assert (settings.optim.betas, settings.optim.weight_decay, settings.optim.clip) == ((0.9, 0.95), 0.01, 1)
    assert (settings.data.batch_size, settings.train.steps) == (256, 56_000)
    assert (settings.model.media.min_area, settings.model.media.max_area) == (256**2, 512**2)
