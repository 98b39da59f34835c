"""Adapters: train one through `fit`, save it as peft does, merge it, load it in the editor.

Merged weights are what the adapted network computes.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from model import Editor
from model.cli import main
from model.config import ModelConfig
from model.inference.lora import (
    LAYERS,
    LoraConfig,
    add_adapter,
    load_adapter,
    merge,
    merge_adapter,
    save_adapter,
)
from model.net.dit import DiT
from model.sequence.interleave import TokenSequence
from model.sequence.packing import pack
from model.training.config import FitConfig
from model.training.trainer import fit
from shards.errors import ConfigError
from shards.serialization import to_dict


def predict(dit: DiT, sequence: TokenSequence) -> torch.Tensor:
    batch = pack([sequence])
    with torch.no_grad():
        out: torch.Tensor = dit(batch, batch.vision, torch.full((batch.segments,), 0.5))[0]
    return out


@pytest.fixture
def adapted(trained_like: DiT) -> DiT:
    dit = copy.deepcopy(trained_like)
    add_adapter(dit, LoraConfig(rank=4, alpha=8))
    return dit


def test_an_adapter_starts_at_nothing_and_merges_exactly(
    trained_like: DiT, adapted: DiT, make_sequence: Callable[..., TokenSequence], tmp_path: Path
) -> None:
    sequence = make_sequence()
    before = predict(trained_like, sequence)
    torch.testing.assert_close(predict(adapted, sequence), before)
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    changed = predict(adapted, sequence)
    assert (changed - before).abs().max() > 1e-2

    save_adapter(adapted, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    loaded = copy.deepcopy(trained_like)
    load_adapter(loaded, tmp_path)
    assert torch.equal(predict(loaded, sequence), changed)
    merged = merge(copy.deepcopy(adapted))
    assert set(merged.state_dict()) == set(trained_like.state_dict())
    torch.testing.assert_close(predict(merged, sequence), changed, atol=1e-5, rtol=0)
    # peft reads the folder by itself
    theirs = PeftModel.from_pretrained(copy.deepcopy(trained_like), str(tmp_path)).merge_and_unload()
    assert all(torch.equal(a, theirs.state_dict()[n]) for n, a in merged.state_dict().items())


def test_bad_adapters_are_named(trained_like: DiT, adapted: DiT, tmp_path: Path) -> None:
    def load(folder: Path) -> None:
        merge_adapter(copy.deepcopy(trained_like), folder)

    with pytest.raises(ConfigError, match=r"adapter_config\.json: not found"):
        load(tmp_path)
    folder = save_adapter(adapted, tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    state, whole = load_file(weights), weights.read_bytes()
    weights.write_bytes(whole[:-9])
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors.*complete"):
        load(folder)
    name = sorted(state)[0]
    save_file(state | {name: torch.full_like(state[name], torch.nan)}, weights)
    with pytest.raises(ConfigError, match="not finite"):
        load(folder)
    save_file({n: v for n, v in state.items() if n != name}, weights)
    with pytest.raises(ConfigError, match="is missing"):
        load(folder)
    weights.unlink()
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"adapter_model\.bin is a pickle"):
        load(folder)
    with pytest.raises(ConfigError, match=r"lora\.layers"):
        add_adapter(copy.deepcopy(trained_like), LoraConfig(layers="nothing"))
    with pytest.raises(ValueError, match="rank at least 1"):
        LoraConfig(rank=0)


def test_train_an_adapter_merge_it_and_edit_with_it(
    fit_config: FitConfig,
    tmp_path: Path,
    power_cut: Callable[[FitConfig, Path, int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    base, lora = tmp_path / "base", LoraConfig(rank=2)
    fit(fit_config, base)
    train = dataclasses.replace(fit_config.train, init_from=str(base), steps=4)
    config = dataclasses.replace(fit_config, model=ModelConfig(), train=train, lora=lora)
    fit(config, tmp_path / "run")
    before, after = (Editor.from_pretrained(p) for p in (base, tmp_path / "run"))
    assert after.config == before.config
    for name in ("base", "run"):  # the model that was trained, not the default of a section that is left out
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["model"] == json.loads((tmp_path / name / "checkpoint" / "config.json").read_text())
    assert "model" not in record["config"]
    changed = {n for n, p in after.dit.state_dict().items() if not torch.equal(p, before.dit.state_dict()[n])}
    assert changed
    assert all(name.startswith("blocks.") for name in changed)

    adapter = tmp_path / "run" / "adapter"
    # no path of this machine
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    with_lora = Editor.from_pretrained(base, lora=adapter)
    assert (
        main(["merge", "--checkpoint", str(base), "--lora", str(adapter), "--out", str(tmp_path / "out")])
        == 0
    )
    merged = Editor.from_pretrained(tmp_path / "out")
    for name, value in after.dit.state_dict().items():
        assert torch.equal(value, with_lora.dit.state_dict()[name])
        assert torch.equal(value, merged.dit.state_dict()[name])

    # a run folder as older versions wrote it, with the defaults of then in it, is still this run's
    older = record["config"] | {"model": to_dict(ModelConfig())}
    older = {"config": older | {"lora": to_dict(LoraConfig(rank=2, layers=LAYERS))}, "data": record["data"]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(older))
    assert fit(config, tmp_path / "run")["reused"]
    record = json.loads((base / "run.json").read_text())
    (base / "run.json").write_text(json.dumps({name: record[name] for name in ("config", "data")}))
    assert fit(fit_config, base)["reused"]
    with pytest.raises(ConfigError, match=r"another run: config.lora.rank is 2 there and 3 here"):
        fit(dataclasses.replace(config, lora=LoraConfig(rank=3)), tmp_path / "run")

    # interrupted and resumed, it is the same adapter
    power_cut(config, tmp_path / "again", 3)
    assert fit(config, tmp_path / "again")["resumed_at"] == 2
    weights = [
        (tmp_path / n / "adapter" / "adapter_model.safetensors").read_bytes() for n in ("run", "again")
    ]
    assert weights[0] == weights[1]


def test_settings_that_contradict_are_named(fit_config: FitConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.init_from"):
        fit(dataclasses.replace(fit_config, lora=LoraConfig()), tmp_path / "a")
    train = dataclasses.replace(fit_config.train, init_from=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="leave this section out"):
        fit(dataclasses.replace(fit_config, train=train), tmp_path / "b")
    with pytest.raises(ConfigError, match=r"none.*config\.json: not found"):
        fit(dataclasses.replace(fit_config, train=train, model=ModelConfig()), tmp_path / "c")
