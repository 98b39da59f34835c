"""Files that come from elsewhere: none of 600 malformed ones hangs, takes the memory or ends in a traceback.

Checkpoints, adapters, benchmark lists, results, a judge's answers, YAML and what a run leaves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmark.suites import open_suite
from model.config import InferenceConfig, MediaConfig, ModelConfig
from model.encoders import part
from model.inference.editor import Editor
from model.inference.lora import LAYERS, LoraConfig, add_adapter, save_adapter
from model.inference.sampler import NotFiniteError
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.rope import RopeConfig
from shards.errors import ConfigError
from shards.media import write_video
from tests.malformed import faults, run_cases, summary

COUNTS = {
    "config": 150, "weights": 80, "adapter": 80, "lists": 100, "results": 20, "answers": 70, "settings": 100,
    "stores": 60,
}  # fmt: skip


def write_files(root: Path, video: np.ndarray) -> None:
    """Fill a folder with one of each file, all in order, and with a secret that no list may reach."""
    description = ModelConfig(
        vae=part(
            "model.encoders.transform.TransformCodec", keep=[[3, 1], [1, 0]], mean=[0.0] * 6, scale=[1.0] * 6
        ),
        dit=DiTConfig(
            text_dim=384, vision_dim=24, width=32, depth=1, heads=2, rope=RopeConfig(dims=(4, 4, 4, 4)),
        ),
        media=MediaConfig(min_area=48 * 64, max_area=48 * 64, frames=5),
        inference=InferenceConfig(steps=2, guidance=1.0),
    )  # fmt: skip
    dit = DiT(description.dit)
    Editor(dit, description).save_pretrained(root / "editor")
    add_adapter(dit, LoraConfig(rank=2))
    save_adapter(dit, root / "adapter")

    entry = {"<text>": "<video1> Remove it.", "<video1>": "videos/a.mp4", "direction": "horizontal"}
    entry |= {"target_prompt": "t", "source_prompt": "s", "type": "remove"}
    lists = {
        "editversebench/test.json": json.dumps({"0": entry, "1": entry}),
        "imgedit/basic_edit.json": json.dumps({"k": {"id": "a.png", "prompt": "p", "edit_type": "color"}}),
        "v2vbench/config.yaml": "data:\n- video_id: a\n  prompt: p\n  edit:\n  - prompt: q\n",
        "tgve_plus/tgve_plus.jsonl": json.dumps(
            {"instruction": "i", "input_caption": "a", "output_caption": "b", "video": "a.mp4", "task": "t"}
        ) + "\n",
    }  # fmt: skip
    for name in (
        "editversebench/videos/a.mp4",
        "v2vbench/a.mp4",
        "tgve_plus/a.mp4",
        "results/0/generate.mp4",
    ):
        write_video(root / name, video, 10.0)
    (root / "imgedit").mkdir()
    Image.fromarray(video[0]).save(root / "imgedit" / "a.png")
    for name in ("secret.mp4", "editversebench/secret"):
        (root / name).write_bytes(b"secret")
    links = {"link.mp4": "../secret.mp4", "zero.mp4": "/dev/zero", "loop": "loop", "pictures": ".."}
    for name, target in links.items():
        (root / "results" / name).symlink_to(target)

    scores = {"ours": {"judge": 3.0, "psnr": "inf"}}
    items = [{"id": str(n), "clip": str(n), "pair": str(n), "scores": scores} for n in range(3)]
    texts = {
        "metrics.yaml": "models:\n  judge:\n    class_path: curation.vlm.endpoint.Endpoint\n"
        "    init_args: {url: 'http://127.0.0.1:1/v1', model: m}\n"
        "metrics:\n- class_path: benchmark.judges.judge.Judge\n  init_args: {model: judge}\n"
        "- class_path: benchmark.metrics.psnr.Psnr\n  init_args: {where: inside}\n",
        "mixture.yaml": "rows:\n  a: {group: g, count: 5, ratio: 2, shards: [x], "
        "tokens: [{frame: [1, 4], frames: [1, 2]}]}\n  b: {count: 1}\n",
        "study.yaml": "train: t.yaml\nseeds: [0, 1]\narms:\n  a: {about: x}\n  b: {config: [c.yaml]}\n"
        "scores:\n  s: {shards: d, limit: 3}\ncolumns:\n- {label: l, score: s, group: all, metric: psnr}\n",
        "rows.yaml": "ours: {pick: 20.5}\n",
        "task.yaml": "class_path: curation.tasks.cg_removal.CgRemoval\ninit_args:\n  scenes: 4\n"
        "  scene: {height: 32, width: 32, frames: 5, fps: 10.0}\n",
        "run/scores.jsonl": '{"address": "a", "value": 1.5, "words": "w"}\n'
        '{"address": "b", "unscored": "r"}\n',
        "run/items.json": json.dumps({"suite": "s", "version": 1, "items": items}),
        "run/made.json": '{"date": "2026-01-01", "commit": "c", "machine": "m"}',
        "run/curve.csv": "step,loss\n0,1\n1,0.5\n2,0.25\n",
        "run/ratings.csv": "item,row,score\n0,ours,1\n1,ours,2\n2,ours,3\n",
        "run/config.json": json.dumps({"suite": "none", "data": "d", "checkpoint": None, "edit": {}}),
    }
    for name, text in (lists | texts).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_no_file_from_elsewhere_hangs_or_ends_in_a_traceback(
    tmp_path: Path, square: Callable[..., tuple[np.ndarray, ...]]
) -> None:
    whole = tmp_path / "files"
    write_files(whole, square(3, 16, 16)[0])
    cases = [f"{kind} {n} {whole}" for kind, count in COUNTS.items() for n in range(-1, count)]
    # the address space of torch, transformers and all else that is imported is 4.2 GB before the first case
    outcomes = run_cases("tests.untrusted:run", cases, memory=13 << 29)
    for kind in COUNTS:
        of = [o for o in outcomes if o.case.startswith(f"{kind} ")]
        print(f"{kind}: {summary(of)}")
        assert of[0].kind == "accepted", of[0]  # the files as they should be
        assert sum(o.kind == "refused" for o in of) > len(of) // 4
    assert not faults(outcomes)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_files`; tests copy what they change."""
    root = tmp_path_factory.mktemp("untrusted") / "files"
    write_files(root, np.zeros((3, 16, 16, 3), np.uint8))
    return root


def with_config(files: Path, folder: Path, path: str, value: Any) -> Path:
    """A copy of the checkpoint whose config.json has another value at a dotted path."""
    shutil.copytree(files / "editor", folder)
    described = json.loads((folder / "config.json").read_text())
    *parents, last = path.split(".")
    inner = described
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    (folder / "config.json").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("vae.class_path", "model.encoders.t5.Path", "no codec of model.encoders"),
        ("vae.class_path", "model.encoders.text.MiniLM", "no codec of model.encoders"),
        ("text_encoder.class_path", "os.system", "only classes under model.encoders"),
        ("vae.init_args.scale", [0.0] * 6, "codec scale: every number must be above 0"),
        ("vae.init_args.scale", [float("nan")] * 6, r"vae\.init_args\.scale\.0: nan is not finite"),
        ("vae.init_args.block", 10**9, "codec block: a number from 1 to 32"),
        ("dit.depth", 20_000, r"dit\.depth: a number from 1 to 1024, got 20000"),
        ("dit.depth", 1000, "does not fit .*: weight 'blocks.1.*' is missing"),
        ("dit.rope.theta", float("nan"), r"dit\.rope\.theta: nan is not finite"),
        ("dit.width", 10**9, r"dit\.width: a number from 1 to 65536"),
        ("dit.heads", 0, r"dit\.heads: a number from 1"),
        ("dit.vision_dim", 0, "dit.vision_dim: 0 is for training alone"),
        ("media.frames", 0, r"media\.frames: a number from 1"),
        ("media.frames", 10**12, r"media\.frames: a number from 1"),
        ("media.max_area", 10**18, r"media\.max_area: a number from"),
        ("inference.steps", 10**9, "steps: a number from 1 to 10000"),
        ("inference.steps", True, "expected int, got True"),
        ("sequence.patch", 0, r"sequence\.patch: a number from 1"),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_named(
    files: Path, tmp_path: Path, path: str, value: Any, message: str
) -> None:
    folder = with_config(files, tmp_path / "editor", path, value)
    with pytest.raises(ConfigError, match=message) as caught:
        Editor.from_pretrained(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_not_finite_is_no_video(files: Path, tmp_path: Path) -> None:
    """Of the codec, of the network in single precision, and of weights that half precision cannot hold."""
    video = np.zeros((5, 48, 64, 3), np.uint8)
    folder = with_config(files, tmp_path / "codec", "vae.init_args.scale", [3e38] * 6)
    with pytest.raises(NotFiniteError, match="the decoded pixels are not finite"):
        Editor.from_pretrained(folder)("<video1> Remove it.", video1=video)

    shutil.copytree(files / "editor", tmp_path / "large")
    weights = tmp_path / "large" / "model.safetensors"
    state = load_file(weights)
    large = {name: torch.full_like(value, 1e37) for name, value in state.items() if "_in.weight" in name}
    save_file(state | large | {"out.weight": torch.ones_like(state["out.weight"])}, weights)
    with pytest.raises(NotFiniteError, match="the tokens after step 1 of 2 are not finite"):
        Editor.from_pretrained(tmp_path / "large")("<video1> Remove it.", video1=video)
    with pytest.raises(ConfigError, match="overflows in float16; use float32 or bfloat16"):
        Editor.from_pretrained(tmp_path / "large", dtype="float16")
    whole_numbers = {name: value.to(torch.int8) for name, value in state.items()}
    save_file(whole_numbers, weights)
    with pytest.raises(ConfigError, match="is I8; weights are floating-point numbers"):
        Editor.from_pretrained(tmp_path / "large")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("target_modules", "(.*a){30}x", r"target_modules: .* regular expression, which is not run; write a"),
        ("target_modules", ["attention.q", "(a+)+$"], "target_modules: a list of names"),
        ("target_modules", ["nothing"], "no linear layer 'nothing'"),
        ("rank_pattern", {"(a+)+$": 4}, "'rank_pattern': .* is not supported"),
        ("modules_to_save", ["out"], "'modules_to_save': .* is not supported"),
        ("r", 10**9, "r: a number from 1 to 4096"),
        ("r", 8, r"does not fit .*editor \(width 32, depth 1\) \(its own base is not named\): weight"),
        ("peft_type", "IA3", "peft_type: only LORA"),
        ("lora_alpha", float("nan"), "lora_alpha: a number from"),
    ],
)
def test_an_adapter_says_nothing_but_names_and_numbers(
    files: Path, tmp_path: Path, field: str, value: Any, message: str
) -> None:
    shutil.copytree(files / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ConfigError, match=message):
        Editor.from_pretrained(files / "editor", lora=tmp_path / "adapter")


@pytest.mark.parametrize("layers", ["all-linear", ["attention.q", "up"], LAYERS])
def test_an_adapter_of_known_layers_is_taken(files: Path, tmp_path: Path, layers: Any) -> None:
    editor = Editor.from_pretrained(files / "editor")
    linear = "|".join(n for n, m in editor.dit.named_modules() if isinstance(m, torch.nn.Linear))
    chosen = {"all-linear": linear, LAYERS: LAYERS}.get(str(layers), r".*(attention\.q|up)")
    add_adapter(editor.dit, LoraConfig(rank=2, layers=chosen))
    path = save_adapter(editor.dit, tmp_path / "adapter") / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": layers}))
    Editor.from_pretrained(files / "editor", lora=tmp_path / "adapter")


@pytest.mark.parametrize("name", ["../secret.mp4", "{root}/secret.mp4", "link.mp4"])
def test_a_list_reaches_nothing_outside_of_its_folder(files: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(files, tmp_path / "files", symlinks=True)
    data = tmp_path / "files" / "editversebench"
    (data / "link.mp4").symlink_to("../secret.mp4")
    entries = json.loads((data / "test.json").read_text())
    entries["0"]["<video1>"] = name.format(root=tmp_path / "files")
    entries["1"] |= {"<text>": "<video1> Like <image1>.", "<image1>": name.format(root=tmp_path / "files")}
    (data / "test.json").write_text(json.dumps(entries))
    for item in open_suite("editversebench", data).items:
        assert item.fault is not None
        assert "is no path inside" in item.fault
