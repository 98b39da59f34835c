"""Adapters to Wan's family: beside the weights and merged, in diffusers' files and from other programs.

A pipeline of diffusers' own loads what is written here, and what other programs write is loaded here.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from peft import LoraConfig as PeftConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.cli import main
from model.inference.editor import Editor
from model.inference.lora import LoraConfig, add_adapter, load_adapter, merge, save_adapter
from model.inference.wan_lora import FIRST, METADATA, SECOND
from model.net.transformer import Transformer
from model.sequence.interleave import patchify
from model.sequence.packing import pack
from shards.errors import ConfigError
from tests.model.test_bases import tiny_pipeline, tiny_transformer
from tests.model.test_wan import sequence
from tests.model.wan_cases import numbers

CHANNELS = 16
ANOTHER = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"  # as a base's name
FFN = r".*blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ffn\.net\.(0\.proj|2))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("lora") / "base"
    tiny_pipeline().save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def base(folder: Path) -> Editor:
    return Editor.from_pretrained(folder)


def fill(dit: Transformer) -> Transformer:
    """Factors that change the output, given by their names."""
    with torch.no_grad():
        for name, parameter in dit.named_parameters():
            if "lora_" in name:
                parameter.copy_(numbers(name, *parameter.shape) * 0.2)
    return dit


def adapted(dit: Transformer, layers: str | None = None, rank: int = 4, alpha: float = 6.0) -> Transformer:
    dit = copy.deepcopy(dit)
    add_adapter(dit, LoraConfig(rank=rank, alpha=alpha, layers=layers))
    return fill(dit).eval()


VIDEO = numbers("clip", 3, 4, 6, CHANNELS)
TEXT = numbers("words", 7, 32)


@torch.no_grad()
def ours(dit: Transformer, time: float = 0.37) -> Tensor:
    batch = pack([sequence(TEXT, {"video1": VIDEO}, "video1")])
    return dit(batch, batch.vision, torch.full((batch.segments,), time))[0]


@torch.no_grad()
def theirs(net: WanTransformer3DModel, time: float = 0.37, tokens: int = 512) -> Tensor:
    """Their prediction in our convention."""
    padded = torch.cat([TEXT, torch.zeros(tokens - len(TEXT), 32)])[None]
    moment = torch.tensor([1000 * (1 - time)])
    out = net(VIDEO.permute(3, 0, 1, 2)[None], moment, padded, return_dict=False)[0][0]
    return -patchify(out.permute(1, 2, 3, 0), 2)


def error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("layers", [None, FFN, r"proj_out|condition_embedder\..*|blocks\.1\..*"])
def test_beside_merged_and_in_diffusers_pipeline_are_one(
    base: Editor, folder: Path, tmp_path: Path, layers: str | None
) -> None:
    plain, beside = ours(base.dit), adapted(base.dit, layers)
    expected = ours(beside)
    assert error(plain, expected) > 0.05
    trained = {n for n, p in beside.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in beside.named_parameters() if "lora_" in n}
    if layers is None:
        assert len(trained) == 2 * 3 * 8  # two factors in three blocks, four projections of two attentions
    save_adapter(beside, tmp_path, "ByteDance/Bernini-R-1.3B-Diffusers")
    assert [p.name for p in tmp_path.iterdir()] == [FIRST]

    assert error(ours(merge(copy.deepcopy(beside))), expected) < 1e-5
    loaded = copy.deepcopy(base.dit)
    load_adapter(loaded, tmp_path)
    assert error(ours(loaded), expected) < 1e-5
    assert error(ours(Editor.from_pretrained(folder, lora=tmp_path).dit), expected) < 1e-5

    pipe = WanPipeline.from_pretrained(folder)
    pipe.load_lora_weights(tmp_path)
    assert error(theirs(pipe.transformer), expected) < 1e-5
    pipe.unload_lora_weights()
    assert error(theirs(pipe.transformer), plain) < 1e-5
    # a program that knows nothing of the metadata takes the scale for one
    pipe.load_lora_weights(load_file(tmp_path / FIRST))
    assert error(theirs(pipe.transformer), expected) < 1e-5


def test_two_experts_are_two_files_that_diffusers_loads_one_by_one(tmp_path: Path) -> None:
    made = tiny_pipeline(transformer_2=tiny_transformer(16, "second"), boundary_ratio=0.875)
    made.save_pretrained(tmp_path / "base")
    editor = Editor.from_pretrained(tmp_path / "base")
    beside = adapted(editor.dit)
    out = save_adapter(beside, tmp_path / "adapter")
    assert {p.name for p in out.iterdir()} == {FIRST, SECOND}
    made.load_lora_weights(out)
    made.load_lora_weights(out, weight_name=SECOND, load_into_transformer_2=True)
    again = Editor.from_pretrained(tmp_path / "base", lora=out).dit
    for time, net in ((0.05, made.transformer), (0.5, made.transformer_2)):
        expected = ours(beside, time)
        assert error(ours(editor.dit, time), expected) > 0.05
        assert error(theirs(net, time), expected) < 1e-5
        assert error(ours(again, time), expected) < 1e-5
    (out / FIRST).unlink()  # as an interrupted save leaves it
    with pytest.raises(ConfigError, match=f"{FIRST}: not found; is the adapter complete"):
        Editor.from_pretrained(tmp_path / "base", lora=out)
    with pytest.raises(ConfigError, match="the second expert alone"):
        add_adapter(copy.deepcopy(editor.dit), LoraConfig(layers=r"transformer_2\..*to_q"))


def original(name: str) -> str:
    """A layer as Wan's own code calls it, written out here once more by hand."""
    part, _, layer = name.rpartition(".attn") if ".attn" in name else name.partition(".ffn.net.")
    if ".attn" in name:
        number, _, projection = layer.partition(".")
        attention = {"1": "self_attn", "2": "cross_attn"}[number]
        return f"{part}.{attention}.{ {'to_q': 'q', 'to_k': 'k', 'to_v': 'v', 'to_out.0': 'o'}[projection] }"
    return f"{part}.ffn.{ {'0.proj': '0', '2': '2'}[layer] }"


def written_elsewhere(net: WanTransformer3DModel, kind: str, folder: Path) -> Path:
    """An adapter that peft made beside diffusers' transformer, as other programs store it."""
    layers = FFN.removeprefix(".*")
    if kind == "patterns":
        net.add_adapter(
            PeftConfig(
                r=4,
                lora_alpha=6,
                target_modules=layers,
                rank_pattern={r"blocks\.1\.attn1\.to_q": 2},
                alpha_pattern={r"blocks\.1\.attn1\.to_q": 3, "attn2.to_v": 9},
            )
        )
    else:
        net.add_adapter(PeftConfig(r=4, lora_alpha=6, target_modules=layers, use_rslora=kind == "rslora"))
    fill(net)
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(net)
    folder.mkdir()
    if kind in ("metadata", "rslora", "patterns"):
        config: dict[str, Any] = net.peft_config["default"].to_dict()
        names = {n.rpartition(".lora_")[0] for n in state}
        known = {k: config[k] for k in ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")}
        WanPipeline.save_lora_weights(
            folder, state, transformer_lora_adapter_metadata={**known, "target_modules": sorted(names)}
        )
    elif kind == "peft":
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["to_q", "to_k", "to_v"]}
        config["target_modules"] += ["to_out.0", "ffn.net.0.proj", "ffn.net.2"]
        (folder / "adapter_config.json").write_text(json.dumps(config))
        state = {f"base_model.model.{n}": v.contiguous() for n, v in state.items()}
        save_file(state, folder / "adapter_model.safetensors")
    else:
        alphas = {}
        for name, value in [*state.items()]:
            layer, _, factor = name.rpartition(".lora_")
            layer = original(layer)
            spelled = (
                "lora_unet_" + layer.replace(".", "_") if kind == "musubi" else f"diffusion_model.{layer}"
            )
            word = (
                {"A.weight": "down.weight", "B.weight": "up.weight"}[factor] if kind == "musubi" else factor
            )
            alphas[f"{spelled}.lora_{word}"] = value.contiguous()
            alphas[f"{spelled}.alpha"] = torch.tensor(6.0)
        save_file(alphas, folder / "anything.safetensors")
    return folder


@pytest.mark.parametrize("kind", ["metadata", "rslora", "patterns", "peft", "comfyui", "musubi"])
def test_adapters_of_other_programs_are_loaded(folder: Path, tmp_path: Path, kind: str) -> None:
    net = WanTransformer3DModel.from_pretrained(folder / "transformer").eval()
    path = written_elsewhere(net, kind, tmp_path / "adapter")
    expected = theirs(net)
    assert error(ours(Editor.from_pretrained(folder, lora=path).dit), expected) < 1e-5
    file = next(path.glob("*.safetensors"))
    if kind != "peft":
        assert error(ours(Editor.from_pretrained(folder, lora=file).dit), expected) < 1e-5
    if kind in ("comfyui", "musubi"):  # and diffusers reads the same in it
        pipe = WanPipeline.from_pretrained(folder)
        pipe.load_lora_weights(path)
        assert error(theirs(pipe.transformer), expected) < 1e-5


def spoiled(state: dict[str, Tensor], fault: str) -> dict[str, Tensor]:
    name, up = (f"transformer.blocks.1.attn1.to_q.lora_{factor}.weight" for factor in "AB")
    return {
        "factor": {n: v for n, v in state.items() if n != up},
        "alone": {n: v for n, v in state.items() if n != name},
        "not finite": state | {up: state[up] * torch.nan},
        "whole numbers": state | {up: state[up].long()},
        "ranks": state | {up: state[up][:, :2].contiguous()},
        "bias": state | {"transformer.blocks.1.attn1.to_q.lora_B.bias": torch.zeros(48)},
        "convolution": {
            "transformer.patch_embedding.lora_A.weight": torch.zeros(4, 16, 1, 2, 2),
            "transformer.patch_embedding.lora_B.weight": torch.zeros(48, 4, 1, 1, 1),
        },
        "twice": state | {up.replace("transformer.", "diffusion_model."): state[up].clone()},
        "alpha": state | {"transformer.blocks.1.attn1.to_q.alpha": torch.tensor(-1.0)},
        "more blocks": state | {name.replace(".1.", ".7."): state[name].clone()},
    }[fault]


@pytest.fixture(scope="module")
def adapter(base: Editor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(adapted(base.dit), tmp_path_factory.mktemp("adapter"), ANOTHER)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("factor", r"to_q.lora_A.weight' is there without the layer's factor B"),
        ("alone", r"to_q.lora_B.weight' is there without the layer's factor A"),
        ("not finite", r"to_q.lora_B.weight' holds values that are not finite"),
        ("whole numbers", r"to_q.lora_B.weight' is I64"),
        ("ranks", r"to_q.lora_B.weight' is \[48, 2\], not \[48, 4\]"),
        ("bias", r"to_q.lora_B.bias' is no factor of low rank"),
        ("convolution", "adapters of patch_embedding are not taken"),
        ("twice", "is there twice, by two names"),
        ("alpha", "alpha: a number from 0"),
        ("more blocks", r"'transformer.blocks.7.attn1.to_q.lora_A.weight' is unknown"),
    ],
)
def test_a_file_at_fault_is_one_line(
    folder: Path, adapter: Path, tmp_path: Path, fault: str, words: str
) -> None:
    file = tmp_path / FIRST
    save_file(spoiled(load_file(adapter / FIRST), fault), file)
    with pytest.raises(ConfigError, match=words) as raised:
        Editor.from_pretrained(folder, lora=tmp_path)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transformer.lora_alpha": "high"}, "lora_alpha: a number from"),
        ({"transformer.use_dora": True}, "use_dora: True is not supported"),
        ({"transformer.alpha_pattern": {"(a+)+$": 2}}, "is an expression, which is not run"),
        ([], "expected an object"),
    ],
)
def test_metadata_is_numbers_and_names(
    folder: Path, adapter: Path, tmp_path: Path, change: Any, words: str
) -> None:
    with safe_open(adapter / FIRST, "pt") as opened:
        value = json.loads(opened.metadata()[METADATA])
    assert value["transformer.base_model_name_or_path"] == ANOTHER
    value = value | change if isinstance(change, dict) else change
    save_file(load_file(adapter / FIRST), tmp_path / FIRST, {METADATA: json.dumps(value)})
    with pytest.raises(ConfigError, match=words):
        Editor.from_pretrained(folder, lora=tmp_path)


def test_pickles_halves_and_what_is_not_there_are_refused(
    folder: Path, adapter: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half" / FIRST
    half.parent.mkdir()
    half.write_bytes((adapter / FIRST).read_bytes()[:-9])
    pickle = tmp_path / "pickle" / "pytorch_lora_weights.bin"
    pickle.parent.mkdir()
    torch.save({}, pickle)
    two = tmp_path / "two"
    two.mkdir()
    for name in ("high.safetensors", "low.safetensors"):
        shutil.copy(adapter / FIRST, two / name)
    for path, words in (
        (half.parent, "is the file complete"),
        (pickle.parent, "pytorch_lora_weights.bin is a pickle, which can run code"),
        (pickle, "is a pickle, which can run code"),
        (two, "name one of them"),
        (tmp_path / "none", "not found"),
    ):
        with pytest.raises(ConfigError, match=words):
            Editor.from_pretrained(folder, lora=path)


def test_an_adapter_for_another_base_is_one_line_before_weights_are_read(
    folder: Path, adapter: Path, tmp_path: Path
) -> None:
    """The weights here are no safetensors at all: what is said first is about the adapter."""
    copied = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((copied / "transformer" / "config.json").read_text())
    config |= {"num_attention_heads": 4, "ffn_dim": 192}
    (copied / "transformer" / "config.json").write_text(json.dumps(config))
    (copied / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"none")
    with pytest.raises(ConfigError) as raised:
        Editor.from_pretrained(copied, lora=adapter)
    message = str(raised.value)
    assert f"trained from {ANOTHER!r}, does not fit {copied} (width 96, depth 3)" in message
    assert "is [4, 48], not [4, 96]" in message
    assert "\n" not in message
    save_file(load_file(adapter / FIRST), tmp_path / "nameless.safetensors")
    with pytest.raises(
        ConfigError, match=r"trained from a model of width 48 that it does not name, does not"
    ):
        Editor.from_pretrained(copied, lora=tmp_path / "nameless.safetensors")


def test_layers_that_files_cannot_hold_are_refused(base: Editor) -> None:
    for layers, words in (
        ("patch_embedding|proj_out", "patch_embedding is a convolution in diffusers"),
        ("nothing", "no linear layer has such a name"),
        ("(", "lora.layers"),
    ):
        with pytest.raises(ConfigError, match=words):
            add_adapter(copy.deepcopy(base.dit), LoraConfig(layers=layers))


def test_a_run_s_adapter_is_exported_and_edited_with(
    base: Editor, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In half precision, by the command; the run's folder alone is enough to edit with."""
    run = tmp_path / "run"
    save_adapter(adapted(base.dit), run / "adapter", ANOTHER)
    words = ["export", "--checkpoint", str(run), "--out", str(tmp_path / "out"), "--format", "diffusers"]
    assert main(words) == 0
    assert "pytorch_lora_weights.safetensors, 0." in capsys.readouterr().out
    pipe = WanPipeline.from_pretrained(folder)
    pipe.load_lora_weights(tmp_path / "out")
    with safe_open(tmp_path / "out" / FIRST, "pt") as opened:
        assert ANOTHER in opened.metadata()[METADATA]
    expected = ours(Editor.from_pretrained(folder, lora=run).dit)
    assert error(theirs(pipe.transformer), expected) < 2e-3
    assert {v.dtype for v in load_file(tmp_path / "out" / FIRST).values()} == {torch.float16}
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
