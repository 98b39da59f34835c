"""The training files for published weights, and docs/bases.md's way from pairs to a LoRA, by its own words.

The base is a tiny pipeline of the real classes, stored by diffusers' own code.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from safetensors.torch import load_file
from transformers import UMT5EncoderModel

from model.cli import main
from model.config import MediaConfig, ModelConfig
from model.data.batch import DataConfig
from model.data.mixture import read_mixture
from model.inference.bases import bases
from model.inference.editor import Editor
from model.inference.lora import LoraConfig
from model.inference.wan_lora import FIRST
from model.net.frozen_linear import BaseDtype
from model.net.wan_config import WanConfig
from model.planner.balance import Cluster
from model.training.callbacks import render
from model.training.checkpoint import states
from model.training.config import FitConfig, OptimConfig, TrainConfig
from model.training.module import EditModule
from model.training.setup import build_datasets, init_model, load_init_weights
from model.training.trainer import fit
from shards.media import probe, write_video
from shards.resources import config_root
from shards.verify import verify
from tests.model.test_bases import tiny_pipeline
from tests.model.test_parallel import degrees, rows, run_ranks
from tests.model.test_recipes import read
from tests.model.test_wan_lora import error, ours, theirs

TRAIN = config_root() / "train"
RECIPES = sorted(p.stem for p in TRAIN.glob("*.*.yaml") if not p.stem.startswith("distill_"))
LORA = "bernini_r_1.3b.lora"
MEDIA = {"min_area": 32 * 48, "max_area": 32 * 48, "frames": 5, "fps": 16}
SECTION = (
    (Path(__file__).parents[2] / "docs" / "bases.md")
    .read_text()
    .partition("## From your own pairs to a LoRA\n")[2]
    .partition("\n## ")[0]
)


def block(language: str) -> str:
    """The section's block of a language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return str(text)


def smaller(base: Path) -> list[str]:
    """What a run on this CPU has otherwise: the base, sizes, steps, and no processes or compiler."""
    settings: dict[str, Any] = {
        "train.init_from": base,
        "train.media": json.dumps(MEDIA),
        "train.steps": 1,
        "train.threads": 1,
        "train.accelerator": "cpu",
        "train.num_val_samples": 1,
        "data.batch_size": 2,
        "data.workers": 0,
        "parallel.compile": "false",
        "parallel.sequence_parallel": 1,
    }
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    pipeline: Any = tiny_pipeline()
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(base: Path, tmp_path_factory: pytest.TempPathFactory, square: Callable[..., Any]) -> Iterator[Path]:
    """A folder in which the section's program and commands were run, on four pairs of uneven lengths."""
    home = tmp_path_factory.mktemp("home")
    lines = []
    for number, (before, after) in enumerate([(7, 7), (6, 7), (5, 5), (9, 9)]):
        for name, frames, which in (("before", before, 0), ("after", after, 1)):
            pixels = square(frames, 48, 64, seed=number)[which]
            write_video(home / "my_pairs" / name / f"{number}.mp4", pixels, 16)
        lines.append(f'{number}.mp4,"Remove the red ball, slowly."\n')
    (home / "my_pairs" / "instructions.csv").write_text("".join(lines))
    write_video(home / "new.mp4", square(5, 32, 48, seed=9)[0], 16)
    (home / "pairs.py").write_text(block("python"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for line in block("sh").replace("\\\n", " ").splitlines():
            run_line(line, base, patch)
        yield home


def run_line(line: str, base: Path, patch: pytest.MonkeyPatch) -> None:
    """One command of the page, with the tiny base in place of the published one."""
    words = [
        {"ByteDance/Bernini-R-1.3B-Diffusers": str(base), "cuda": "cpu"}.get(w, w) for w in shlex.split(line)
    ]
    if words[:2] == ["python", "pairs.py"]:
        patch.setattr(sys, "argv", words[1:])
        exec(compile(Path("pairs.py").read_text(), "pairs.py", "exec"), {"__name__": "__main__"})
    elif words[:3] == ["python", "-m", "shards"]:
        assert words[3] == "verify"
        report = verify(words[4])
        assert (report.samples, report.faults) == (4, [])
    elif words[:3] == ["python", "-m", "model"]:
        assert main([*words[3:], *smaller(base)]) == 0
    else:
        assert words[:2] == ["editverse", "edit"]
        assert main([*words[1:], "--steps", "2"]) == 0


def test_the_page_leads_from_pairs_to_an_edit(home: Path) -> None:
    assert probe(home / "edited.mp4").frames == 5
    state = load_file(home / "runs" / LORA / "adapter" / FIRST)
    assert {min(value.shape) for value in state.values()} == {32}
    settings = json.loads((home / "runs" / LORA / "run.json").read_text())["config"]
    assert settings["optim"]["lr"] == settings["optim"]["final_lr"] == 1e-4
    assert settings["data"]["video_drop_prob"] == 0.1
    summary = json.loads((home / "runs" / LORA / "summary.json").read_text())
    assert (summary["train_samples"], summary["heldout_samples"]) == (3, 1)


def test_a_recipe_trains_all_weights(home: Path, base: Path) -> None:
    """With the published settings on the latents that the page's commands made."""
    config = "configs/train/bernini_r_1.3b.full.yaml"
    assert main(["fit", "--config", config, *smaller(base)]) == 0
    was = Editor.from_pretrained(base).dit.state_dict()
    trained = load_file(home / "runs" / "bernini_r_1.3b.full" / "checkpoint" / "model.safetensors")
    assert trained.keys() == was.keys()
    assert sum(not torch.equal(value, was[name]) for name, value in trained.items()) > len(was) / 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_published_one(
    name: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read(name)
    weights, kind = name.rsplit(".", 1)
    known = {b.name: b for b in bases()}[weights]
    assert settings.train.init_from == known.repository
    optim, data, media = settings.optim, settings.data, settings.train.media
    rates = (optim.lr, optim.final_lr, optim.ema, optim.weight_decay, optim.clip)
    assert rates == ((1e-5, 1e-5, 0.9999, 0.01, 1) if kind == "full" else (1e-4, 1e-4, 0.99, 0.01, 1))
    assert (settings.lora is None) == (kind == "full")
    assert (data.text_drop_prob, data.image_drop_prob, data.video_drop_prob) == (0.1, 0.1, 0.1)
    assert data.shift_by_form == {"t2i": 3, "t2v": 3, "i2i": 4, "r2v": 4, "v2i": 4, "v2v": 5}
    assert all((way == "mode") == form.endswith("v") for form, way in data.sampling_by_form.items())
    # a micro-batch on a GPU holds a pair of the largest clips, and no more
    side = 2 * known.spatial
    assert data.token_budget == 2 * ((media.frames + 3) // 4) * (media.max_area // side**2)
    # and the settings fit the base: Wan's sources are told apart, Bernini's already are
    train = dataclasses.replace(settings.train, init_from=str(base))
    config = FitConfig(data, settings.model, optim, train, settings.parallel, settings.lora)
    network = init_model(config).network
    assert isinstance(network, WanConfig)
    assert network.rope.source == (weights != "bernini_r_1.3b")


def test_every_other_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (config_root() / "train").glob("*.yaml"):
        if file.stem not in RECIPES:
            settings = read(file.stem)
            init_from = settings.train.init_from
            assert init_from is None or settings.model == ModelConfig()
            if settings.data.mixture is not None:
                assert read_mixture(settings.data.mixture).rows


def test_the_first_stage_is_of_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 2B at 360p from texts alone; what goes on from it has the sizes of before."""
    monkeypatch.chdir(tmp_path)
    first, then = read("2b_pretrain"), read("2b")
    assert first.model.media.max_area == 640 * 360
    assert dataclasses.replace(first.model, media=then.model.media) == then.model
    groups = {row.group for row in read_mixture(first.data.mixture).rows.values()}
    assert groups == {"image_generation", "video_generation"}
    text = (config_root() / "train" / "2b.yaml").read_text()
    assert f"# init_from: {first.run}" in text
    media = re.search(r"# media: \{(.*)\}", text)
    assert media is not None
    values = {name: float(value) for name, value in (pair.split(": ") for pair in media[1].split(", "))}
    assert values == dataclasses.asdict(then.model.media)


@pytest.mark.parametrize(
    "weights",
    [
        "bernini_r_1.3b",
        pytest.param("wan2.1_1.3b", marks=pytest.mark.slow),
        pytest.param("wan2.2_5b", marks=pytest.mark.slow),
    ],
)
def test_what_a_recipe_says_it_costs_is_what_the_plan_prints(
    weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figure by figure, for its own sizes; the page shows the same table."""
    for kind, row_of in (("full", "full"), ("lora", "LoRA 32")):
        text = (config_root() / "train" / f"{weights}.{kind}.yaml").read_text().replace(" \\\n#    ", "")
        (command,) = re.findall(r"^#   python -m model (plan --base .*)$", text, re.MULTILINE)
        assert main(shlex.split(command)) == 0
        out = capsys.readouterr().out
        cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
        table = {row: numbers for row, *numbers in cells}
        for row in ("GiB per GPU", "seconds per step", "GPU-hours"):
            (said,) = re.findall(rf"^#   {row} +(.*)$", text, re.MULTILINE)
            assert said.split() == table[f"{row_of}: {row}"], (kind, row)
        settings = read(f"{weights}.{kind}")
        given = dict(zip(*[iter(shlex.split(command)[1:])] * 2, strict=True))
        data, train = settings.data, settings.train
        assert given["--base"] == weights
        assert int(given["--frames"]) == train.media.frames
        assert int(given["--height"]) * int(given["--width"]) == train.media.max_area
        assert int(given["--batch_size"]) == data.batch_size
        heads = next(base.config.heads for base in bases() if base.name == weights)
        Cluster(64, 8, settings.parallel.sequence_parallel, heads)  # refuses what cannot share a sequence
        assert int(given["--samples"]) == data.batch_size * train.steps
        if f"{weights}.{kind}" == LORA:
            assert float(table["LoRA 32: GiB per GPU"][0]) < 20  # of a card of 24
            head, *shown = block("text").splitlines()
            assert head == f"$ python -m model {command}"
            printed = [line.rstrip() for line in out.splitlines() if not line.startswith("attention backend")]
            assert shown == printed


@pytest.fixture(scope="module")
def config(home: Path, base: Path) -> FitConfig:
    """An adapter that moves far in few steps."""
    return FitConfig(
        data=DataConfig(
            shards=(str(home / "data" / "shards" / "pairs"),),
            batch_size=2,
            token_budget=60,
            crops=1,
            latent_cache=str(home / "data" / "latents" / "bernini_r_1.3b"),
            video_drop_prob=0.3,
        ),
        optim=OptimConfig(lr=2e-2, final_lr=2e-2, warmup=0, ema=0.5),
        train=TrainConfig(
            init_from=str(base),
            media=MediaConfig(**MEDIA),
            steps=4,
            accelerator="cpu",
            threads=1,
            save_every=2,
            validate_every=1000,
            num_val_samples=1,
        ),
        lora=LoraConfig(rank=4, alpha=6.0),
    )


@pytest.fixture(scope="module")
def alone(config: FitConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    fit(config, run)
    return run


def test_diffusers_loads_the_adapter_of_a_run(alone: Path, base: Path) -> None:
    """Their pipeline with it computes what our merged checkpoint does."""
    merged = ours(Editor.from_pretrained(alone).dit)
    assert error(ours(Editor.from_pretrained(base).dit), merged) > 0.01
    assert error(ours(Editor.from_pretrained(base, lora=alone).dit), merged) < 1e-5
    pipe = WanPipeline.from_pretrained(base)
    pipe.load_lora_weights(alone / "adapter")
    assert error(theirs(pipe.transformer), merged) < 1e-5


def test_an_adapter_s_run_goes_on_as_if_it_had_not_stopped(
    config: FitConfig, alone: Path, tmp_path: Path, power_cut: Callable[[FitConfig, Path, int], None]
) -> None:
    power_cut(config, tmp_path / "run", 3)
    assert fit(config, tmp_path / "run")["resumed_at"] == 2
    one, other = (load_file(run / "adapter" / FIRST) for run in (alone, tmp_path / "run"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("kind", "ranks", "near"),
    [
        ("nf4", 1, 0.1),
        pytest.param("bfloat16", 1, 0.01, marks=pytest.mark.slow),
        pytest.param("int8", 1, 0.02, marks=pytest.mark.slow),
        pytest.param("nf4", 2, 0.1, marks=pytest.mark.slow),
    ],
)
def test_an_adapter_beside_weights_in_fewer_bits(
    config: FitConfig, alone: Path, base: Path, tmp_path: Path, kind: BaseDtype, ranks: int, near: float
) -> None:
    """It learns as beside whole weights, its state is its own, and it goes into the weights as they were.

    Measured, losses were within 0.002 % (bfloat16), 0.1 % (int8) and 3.3 % (nf4) of those.
    """
    assert config.lora is not None
    config = dataclasses.replace(config, lora=dataclasses.replace(config.lora, base=kind))
    run = tmp_path / "run"
    if ranks == 1:
        fit(config, run)
    else:
        run_ranks(config, run, ranks)
    losses = [[float(row["loss"]) for row in rows(folder)] for folder in (run, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=near)
    assert losses[0][-1] < losses[0][0]
    merged = ours(Editor.from_pretrained(run).dit)
    assert error(ours(Editor.from_pretrained(base, lora=run).dit), merged) < 1e-5
    untouched = Editor.from_pretrained(base).dit.state_dict()
    kept = Editor.from_pretrained(run).dit.state_dict()
    assert torch.equal(kept["blocks.0.ffn.net.2.weight"], untouched["blocks.0.ffn.net.2.weight"])
    sizes = [
        sum(value.nbytes for file in folder.glob("*.safetensors") for value in load_file(file).values())
        for folder in (states(run / "state")[-1], run / "adapter")
    ]
    assert sizes[0] < 4.01 * sizes[1]  # weights, average and two moments, and a count of steps each
    edits = Editor.from_pretrained(run)
    source = np.full((5, 32, 48, 3), 90, np.uint8)
    assert edits("<video1> Remove the ball.", video1=source, steps=1).frames.shape == source.shape


def test_held_out_pairs_leave_no_encoder_behind(config: FitConfig, tmp_path: Path) -> None:
    """Training may have no room for what they were edited with."""

    def encoders() -> int:
        gc.collect()
        return sum(isinstance(thing, AutoencoderKLWan | UMT5EncoderModel) for thing in gc.get_objects())

    before = encoders()
    _, heldout, model = build_datasets(config, None)
    assert heldout is not None
    module = EditModule(model, config.optim, 1, load_init_weights(config))
    rendered = render(tmp_path, module, heldout, 1)
    assert len(rendered.rows) == 1
    assert encoders() == before


@pytest.mark.slow
def test_two_ranks_train_the_same_adapter(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """They share sequences, and the frozen weights."""
    pairs = build_datasets(config, None)[0]
    longest = int(pairs.lengths_of(range(len(pairs))).max())
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, token_budget=longest * 2 // 3))
    assert any(2 in found for found in degrees(config, tmp_path / "data", Cluster(2, 2, 2, 2)))
    parallel = dataclasses.replace(config.parallel, sequence_parallel=2)
    run_ranks(dataclasses.replace(config, parallel=parallel), tmp_path / "run", 2)
    one, two = ([float(row["loss"]) for row in rows(run)] for run in (alone, tmp_path / "run"))
    assert len(one) == config.train.steps
    assert two == pytest.approx(one, rel=1e-5)
    expected = ours(Editor.from_pretrained(alone).dit)
    assert error(ours(Editor.from_pretrained(tmp_path / "run").dit), expected) < 1e-4
