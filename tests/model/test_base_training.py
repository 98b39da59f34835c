"""Training from published weights: what is learned does not depend on packing, caches, ranks or stops.

The base is a tiny pipeline of the real classes, stored by diffusers' own code.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from model.config import InferenceConfig, MediaConfig, ModelConfig
from model.data.batch import DataConfig, StepBatch
from model.data.variants import form_of
from model.inference.diffusers_export import export_diffusers
from model.inference.editor import Editor
from model.inference.lora import LoraConfig
from model.net.wan import WanTransformer
from model.planner.balance import Cluster
from model.sequence.interleave import patchify, unpatchify
from model.training.checkpoint import states
from model.training.config import FitConfig, OptimConfig, TrainConfig
from model.training.dataloader import PlannedSteps
from model.training.module import EditModule, micro_loss
from model.training.precompute import precompute
from model.training.setup import build_datasets, init_model, load_init_weights
from model.training.trainer import fit
from shards.errors import ConfigError, SettingError
from shards.media import read_video, write_image
from shards.sample import ClipRef, Media, Provenance, Sample
from shards.writer import Item, write_shards
from tests.model.test_bases import tiny_pipeline
from tests.model.test_parallel import degrees, kill_after, parallel, rows, run_ranks, same, weights
from tests.model.wan_cases import SIZES
from tests.model.wan_cases import weights as numbered

STEPS = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan 2.1's pipeline, as its own library stores it."""
    folder = tmp_path_factory.mktemp("base")
    sizes = {"num_attention_heads": 4, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16}
    transformer: Any = WanTransformer3DModel(**SIZES | sizes)
    transformer.load_state_dict(numbered({n: p.shape for n, p in transformer.state_dict().items()}))
    pipeline: Any = tiny_pipeline(transformer=transformer)
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_shards(folder / "shards", make_items(folder / "media", pairs=4, frames=5, height=32, width=48))
    return folder / "shards"


@pytest.fixture(scope="module")
def config(base: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> FitConfig:
    """Latents and states are made once; three steps see every form of dropout.

    Gradients are 0.1 in the middle, and a few are rounding alone, 1e-6. AdamW would move those as far as the
    others, each way by chance; `eps` is between the two.
    """
    made = FitConfig(
        data=DataConfig(
            shards=(str(pairs),),
            batch_size=3,
            token_budget=60,
            crops=1,
            latent_cache=str(tmp_path_factory.mktemp("cache") / "latents"),
            text_drop_prob=0.3,
            video_drop_prob=0.3,
            shift_by_form={"v2v": 5.0},
            sampling_by_form={"v2v": "mode"},
        ),
        optim=OptimConfig(lr=3e-3, final_lr=3e-3, warmup=2, ema=0.9, eps=1e-3),
        train=TrainConfig(
            init_from=str(base),
            media=MediaConfig(min_area=32 * 48, max_area=32 * 48, frames=5, fps=16),
            source_phase=True,
            steps=STEPS,
            accelerator="cpu",
            threads=1,
            save_every=2,
            validate_every=1000,
            num_val_samples=1,
        ),
    )
    precompute(made)
    return made


@pytest.fixture(scope="module")
def alone(config: FitConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    fit(config, run)
    return run


def changed(config: FitConfig, **changes: Any) -> FitConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def first_step(config: FitConfig) -> StepBatch:
    train, _, _ = build_datasets(config, None)
    if config.data.latent_cache is not None:
        train.read_latent_cache(config.data.latent_cache, config.data)
    return PlannedSteps(train, config.data, config.train.seed, 0, 1)[0]


def test_the_loss_is_that_of_the_published_class(config: FitConfig, base: Path) -> None:
    """Without sources a sample is Wan's own text to video: its class, its time, its velocity, its padding."""
    config = changed(config, video_drop_prob=1.0, text_drop_prob=0.0)
    theirs = WanTransformer3DModel.from_pretrained(base, subfolder="transformer")
    module = EditModule(init_model(config), config.optim, 1, load_init_weights(config))
    losses = {}
    for micro in first_step(config).micro:
        per_token = micro_loss(module.dit, micro, module.config).detach()
        prompts = micro.batch.prompt
        assert prompts is not None
        rows_of, ends = prompts.states, prompts.cu_seqlens
        for number, key in enumerate(micro.keys):
            own = micro.batch.target_sequence == number
            clean, noise = micro.batch.vision[micro.batch.target_vision][own], micro.noise[own]
            t = micro.time[number]
            prompt = rows_of[ends[number] : ends[number + 1]]
            padded = torch.cat([prompt, torch.zeros(512 - len(prompt), prompt.shape[1])])

            def grid(tokens: torch.Tensor) -> torch.Tensor:
                return unpatchify(tokens, (2, 2, 3), 2).permute(3, 0, 1, 2)[None]

            with torch.no_grad():
                out = theirs(grid(t * clean + (1 - t) * noise), 1000 * (1 - t)[None], padded[None])[0]
            expected = (out - grid(noise - clean)).square().mean()
            losses[key] = float(per_token[own].mean()), float(expected)
    assert len(losses) == 3
    for ours, expected in losses.values():
        assert ours == pytest.approx(expected, rel=1e-5)


def test_made_beforehand_or_while_training(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    fit(changed(config, latent_cache=None), tmp_path / "run")
    same(alone, tmp_path / "run", STEPS)


def test_packings(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """A sample a micro-batch, where two of them fit into one before."""
    fit(changed(config, token_budget=36), tmp_path / "run")
    same(alone, tmp_path / "run", STEPS)


def test_two_ranks_share_sequences(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """Each attends to its own part's prompt; one of them has no token of some sequences."""
    assert {1, 2} in degrees(config, tmp_path / "data", Cluster(2, 2, 2, 4))
    run_ranks(parallel(config, sequence_parallel=2), tmp_path / "run", 2)
    same(alone, tmp_path / "run", STEPS)


@pytest.mark.slow
def test_bf16_between_two_ranks_learns_as_one(config: FitConfig, tmp_path: Path) -> None:
    """Rounded norms and tables show: losses were within 0.6 % of one rank's when measured."""
    train = dataclasses.replace(config.train, precision="bf16-mixed")
    config = dataclasses.replace(config, train=train)
    fit(config, tmp_path / "alone")
    run_ranks(parallel(config, gather="bfloat16"), tmp_path / "run", 2)
    alone, run = ([float(row["loss"]) for row in rows(tmp_path / name)] for name in ("alone", "run"))
    np.testing.assert_allclose(run, alone, rtol=0.01)


@pytest.mark.slow
def test_four_ranks_share_sequences(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    assert {2, 4} in degrees(config, tmp_path / "data", Cluster(4, 4, 4, 4))
    run_ranks(parallel(config, sequence_parallel=4), tmp_path / "run", 4)
    same(alone, tmp_path / "run", STEPS)


def test_killed_and_resumed_on_other_ranks(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """`kill -9` of two ranks after the fifth step; one goes on."""
    kill_after(parallel(config, sequence_parallel=2), tmp_path / "run", 5, ranks=2)
    assert states(tmp_path / "run" / "state")
    fit(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["resumed_at"] >= 2
    same(alone, tmp_path / "run", STEPS)


def test_what_is_trained_edits_and_goes_back(config: FitConfig, alone: Path, tmp_path: Path) -> None:
    """The checkpoint edits at the sizes of training, and diffusers reads what is exported."""
    editor = Editor.from_pretrained(alone / "checkpoint")
    assert editor.config.media == config.train.media
    assert isinstance(editor.dit, WanTransformer)
    assert editor.dit.config.rope.source
    source = np.full((5, 32, 48, 3), 90, np.uint8)
    edit = editor("<video1> Remove the ball.", video1=source, steps=2, guidance=1.0)
    assert edit.frames.shape == source.shape
    export_diffusers(editor, tmp_path / "out")
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "out", subfolder="transformer")
    trained = weights(alone)
    name = "blocks.1.ffn.net.2.weight"  # the same in both layouts
    assert torch.equal(theirs.state_dict()[name], trained[name])


def test_nothing_is_lost_on_the_way_in(config: FitConfig, base: Path, tmp_path: Path) -> None:
    """A step of no length leaves the base as it is, to the bit, average and all."""
    still = dataclasses.replace(
        config,
        optim=OptimConfig(lr=0.0, final_lr=0.0, warmup=0, weight_decay=0.0, ema=0.9),
        train=dataclasses.replace(config.train, steps=1),
    )
    fit(still, tmp_path / "run")
    was = Editor.from_pretrained(base).dit.state_dict()
    trained = weights(tmp_path / "run")
    assert trained.keys() == was.keys()
    assert all(torch.equal(value, was[name]) for name, value in trained.items())


def test_what_is_trained_has_the_phase_that_is_saved(config: FitConfig) -> None:
    network = load_init_weights(config)
    assert network is not None
    assert network.config == init_model(config).network
    assert network.config.rope.source


def with_words(config: FitConfig, folder: Path) -> FitConfig:
    """The same training with the text among the tokens too, and latents and states of its own."""
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, text="both"))
    config = changed(config, latent_cache=str(folder / "latents"), token_budget=90)
    precompute(config)
    return config


def test_words_of_a_sample_are_those_made_beforehand(config: FitConfig, tmp_path: Path) -> None:
    """Prompt and pieces of text each have states; lengths are planned as they come out."""
    other = str(config.data.latent_cache)
    config = with_words(changed(config, flip_prob=0.5, text_drop_prob=0.0, video_drop_prob=0.0), tmp_path)
    train, _, _ = build_datasets(config, None)
    lengths = train.lengths_of(range(len(train))).tolist()
    made = [train.example(i, 0, i, 0, config.data).sequence for i in range(len(train))]
    assert [len(sequence) for sequence in made] == lengths
    train.read_latent_cache(str(config.data.latent_cache), config.data)
    assert train.lengths_of(range(len(train))).tolist() == lengths
    for i, sequence in enumerate(made):
        read = train.example(i, 0, i, 0, config.data).sequence
        assert sequence.prompt is not None
        assert len(sequence.text) > 0
        assert read.prompt is not None
        for ours, theirs in ((read.text, sequence.text), (read.prompt, sequence.prompt)):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match=r"was encoded with sequence\.text 'cross_attention'"):
        train.read_latent_cache(other, changed(config, flip_prob=0.0).data)


def test_words_are_trained_saved_and_read(config: FitConfig, tmp_path: Path) -> None:
    """Two steps open the gates; the checkpoint edits, is not exported, and not read without the gates."""
    config = with_words(config, tmp_path)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=2))
    fit(config, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint"
    editor = Editor.from_pretrained(checkpoint)
    assert (editor.config.sequence.text, editor.dit.config.words) == ("both", True)
    trained = weights(tmp_path / "run")
    gates = [name for name in trained if name.endswith("word_gate")]
    assert len(gates) == editor.dit.config.depth
    assert all(bool(trained[name].all()) for name in gates)
    source = np.full((5, 32, 48, 3), 90, np.uint8)
    edits = [editor(f"<video1> {text}", video1=source, steps=2) for text in ("Remove the ball.", "Go.")]
    assert all(edit.frames.shape == source.shape for edit in edits)
    assert not np.array_equal(edits[0].frames, edits[1].frames)
    with pytest.raises(ConfigError, match="no place for text among the tokens"):
        export_diffusers(editor, tmp_path / "out")
    save_file({n: w for n, w in trained.items() if n not in gates}, checkpoint / "model.safetensors")
    (checkpoint / "SHA256SUMS").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"weight 'blocks\.0\.attn1\.word_gate' is missing"):
        Editor.from_pretrained(checkpoint)


@pytest.mark.slow
def test_two_ranks_share_sequences_with_words(config: FitConfig, tmp_path: Path) -> None:
    """A rank attends with some heads, each of which has a gate of its own."""
    config = with_words(config, tmp_path)
    assert {1, 2} in degrees(config, tmp_path / "data", Cluster(2, 2, 2, 4))
    fit(config, tmp_path / "alone")
    run_ranks(parallel(config, sequence_parallel=2), tmp_path / "run", 2)
    same(tmp_path / "alone", tmp_path / "run", STEPS)


def test_dropout_and_times_by_form(config: FitConfig) -> None:
    """Sources, masks and texts go by their own chances; the time follows the sample's form."""
    config = changed(config, latent_cache=None, text_drop_prob=0.5, video_drop_prob=0.5)
    train, _, model = build_datasets(config, None)
    entry = train.entry(0)
    assert form_of(entry, "video2") == "v2v"
    seen = set()
    for step in range(24):
        example = train.example(0, 0, step, 0, config.data)
        names = [s.name for s in example.sequence.segments]
        assert names in (["video1", "video2"], ["video2"])
        prompt = example.sequence.prompt
        assert prompt is not None
        seen.add((len(names), len(prompt) > 1))  # the empty text is its </s>
        plain = changed(config, shift_by_form={}, sampling_by_form={})
        other = train.example(0, 0, step, 0, plain.data)
        assert other.time != example.time
        assert torch.equal(other.noise, example.noise)
    assert len(seen) == 4
    flow = dataclasses.replace(model.flow, shift=5.0, sampling="mode")
    assert config.data.flow_of("v2v", model.flow) == flow
    assert config.data.flow_of("t2v", model.flow) == model.flow


def test_bad_settings(config: FitConfig, base: Path, tmp_path: Path) -> None:
    """Each is one line, before a weight is read."""
    with pytest.raises(SettingError, match=r"data\.shift_by_form: video is none of t2i"):
        changed(config, shift_by_form={"video": 5.0})
    with pytest.raises(SettingError, match=r"data\.sampling_by_form\.v2v: flow\.sampling: 'cosine'"):
        changed(config, sampling_by_form={"v2v": "cosine"})
    with pytest.raises(SettingError, match=r"train\.media: replaces what train\.init_from says"):
        TrainConfig(media=MediaConfig())
    with pytest.raises(SettingError, match=r"train\.text: replaces what train\.init_from says"):
        TrainConfig(text="both")
    both = dataclasses.replace(config, train=dataclasses.replace(config.train, text="both"))
    with pytest.raises(ConfigError, match=r"train\.text: an adapter leaves the new weights"):
        init_model(dataclasses.replace(both, lora=LoraConfig()))
    with pytest.raises(ConfigError, match=r"sequence\.text: this transformer takes both, not cross_att"):
        dataclasses.replace(init_model(both), sequence=init_model(config).sequence)
    with pytest.raises(ConfigError, match="leave this section out"):
        init_model(dataclasses.replace(config, model=ModelConfig(inference=InferenceConfig(steps=3))))
    experts = shutil.copytree(base, tmp_path / "experts")
    shutil.copytree(experts / "transformer", experts / "transformer_2")
    index = json.loads((experts / "model_index.json").read_text())
    index |= {"boundary_ratio": 0.875, "transformer_2": index["transformer"]}
    (experts / "model_index.json").write_text(json.dumps(index))
    two = dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=str(experts)))
    with pytest.raises(ConfigError, match="two experts can edit but not be trained here"):
        fit(two, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    other = changed(config, flip_prob=0.5)
    with pytest.raises(ConfigError, match="was encoded with flip"):
        fit(other, tmp_path / "run")


def test_prompts_are_those_of_editing(base: Path, pairs: Path, config: FitConfig) -> None:
    """What is trained on is what the editor asks for: Bernini's sentence, tags in words, no words at all."""
    config = changed(config, latent_cache=None)
    train, _, model = build_datasets(config, None)
    entry = next(train.entry(i) for i in range(len(train)) if "<mask>" in train.entry(i).text)
    assert train.texts_of(entry) == ["Remove the square marked in the mask.", ""]
    train.model = dataclasses.replace(
        model, sequence=dataclasses.replace(model.sequence, system_prompt="bernini")
    )
    sentence = "You are a helpful assistant specialized in video editing."
    assert train.texts_of(entry) == [f"{sentence}Remove the square marked in the mask.", sentence]
    asked: list[str] = []
    encode = train.text_encoder.encode

    def encode_and_note(texts: list[str]) -> list[torch.Tensor]:
        asked.extend(texts)
        return encode(texts)

    train.text_encoder.encode = encode_and_note  # type: ignore[method-assign]
    for drop in (0.0, 1.0):
        train.example(0, 0, 0, 0, dataclasses.replace(config.data, text_drop_prob=drop))
    assert asked == [f"{sentence}Remove the square.", sentence]


def test_the_first_frame_is_given_and_not_learned(
    config: FitConfig, tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    """Under TI2V a picture's video is learned from its second latent frame on, and is as long as planned."""
    ((_, files), *_) = make_items(tmp_path / "media", pairs=1, frames=5, height=32, width=48, heldout=0)
    write_image(tmp_path / "first.png", read_video(files["video1"])[0])
    size = {"height": 32, "width": 48}
    sample = Sample(
        key="moves",
        split="train",
        task="image_to_video",
        text="<image1> The square moves. <video1>",
        targets=["video1"],
        media={
            "image1": Media(file="image1.png", kind="image", frames=1, **size),
            "video1": Media(file="video1.mp4", kind="video", frames=5, fps=10.0, **size),
        },
        provenance=Provenance(clip=ClipRef(sha256="0" * 64, name="square", span=(0.0, 0.5))),
    )
    write_shards(
        tmp_path / "shards", [(sample, {"image1": tmp_path / "first.png", "video1": files["video1"]})]
    )
    data = {"shards": (str(tmp_path / "shards"),), "latent_cache": None, "text_drop_prob": 0.0}
    config = changed(config, **data, image_drop_prob=0.5)
    train, _, model = build_datasets(config, None)
    tokens = 2 * 3  # of a frame
    assert train.lengths_of([0]).tolist() == [3 * tokens]
    layout = dataclasses.replace(model.sequence, image_to_video="first_frame")
    train.model = dataclasses.replace(model, sequence=layout)
    assert train.lengths_of([0]).tolist() == [2 * tokens]
    seen = set()
    for step in range(8):
        example = train.example(0, 0, step, 0, config.data)
        sequence = example.sequence
        assert len(sequence) == 2 * tokens
        names = tuple(s.name for s in sequence.segments)
        seen.add(names)
        if names == ("image1", "video1"):
            first, rest = sequence.vision.split([tokens, tokens])
            whole = train.latents(train.record(0), "video1", (0, 5), False)
            assert torch.equal(torch.cat([first, rest]), patchify(whole, 2))
            assert sequence.positions[:, 1].tolist() == [0] * tokens + [1] * tokens
            assert sequence.positions[:, 0].unique().tolist() == [0]  # no source apart from the video
            assert len(example.noise) == len(example.weight) == example.size == tokens
        else:
            assert len(example.noise) == 2 * tokens
    assert seen == {("image1", "video1"), ("video1",)}
    both = dataclasses.replace(config, train=dataclasses.replace(config.train, text="both"))
    train, _, model = build_datasets(both, None)
    train.model = dataclasses.replace(
        model, sequence=dataclasses.replace(model.sequence, image_to_video="first_frame")
    )
    still = changed(both, image_drop_prob=0.0).data  # among words the picture has bounds of its own
    assert train.lengths_of([0]).tolist() == [len(train.example(0, 0, 0, 0, still).sequence)]
