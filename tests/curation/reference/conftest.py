"""Fixtures of the reference preset's tests: tiny checkpoints, an endpoint, programs and configurations."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from curation.annotators import diffueraser, recammaster, step1x_edit
from curation.annotators.grounding_dino import GroundingDinoPackage
from curation.annotators.sam2 import Sam2Package
from curation.engine.task_config import default_config
from shards.media import write_video
from tests.curation.reference.answers import Answers
from tests.curation.reference.tiny_alternatives import ALTERNATIVES
from tests.curation.reference.tiny_models import MAKERS, SAM2, bert_tokenizer


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`tiny(name)` -> path of a tiny model's checkpoint, made once."""
    folder, made = tmp_path_factory.mktemp("tiny"), {}

    def get(name: str) -> str:
        if name not in made:
            made[name] = str((MAKERS | ALTERNATIVES)[name](folder / name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def sam2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of sam2.1_hiera_tiny.pt."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam2") / "sam2.1_hiera_tiny.pt"
    model = Sam2Package(str(path), "configs/sam2.1/sam2.1_hiera_t.yaml", SAM2).build()
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += 3
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def dino_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Random weights in the layout of groundingdino_swint_ogc.pth, and a BERT of bert-base's depth."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("dino")
    path, bert = folder / "groundingdino_swint_ogc.pth", folder / "bert"
    bert_tokenizer(bert)
    size = {"hidden_size": 48, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 12}
    words = len(BertTokenizerFast.from_pretrained(bert))
    BertModel(BertConfig(vocab_size=words, **size)).save_pretrained(bert)
    torch.manual_seed(0)
    model = GroundingDinoPackage(str(path), text_encoder=str(bert)).build()
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    weights["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    weights["module.label_enc.weight"] = torch.zeros(2001, 256)
    torch.save({"model": weights}, path)
    return path, bert


@pytest.fixture(scope="session")
def clip() -> np.ndarray:
    """Nine frames of moving blobs, uint8 [9, 64, 96, 3]."""
    y, x = np.mgrid[0:64, 0:96]
    frames = []
    for t in range(9):
        frame = np.stack([80 + x, 60 + 2 * y, 120 + 0 * x], -1).clip(0, 255)
        frame[(x - 20 - 5 * t) ** 2 + (y - 30) ** 2 < 150] = (220, 40, 40)
        frames.append(frame.astype(np.uint8))
    return np.stack(frames)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """URL of an endpoint that answers."""
    running = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}/v1"
    running.shutdown()


@pytest.fixture
def endpoint(server: str) -> Iterator[tuple[str, type[Answers]]]:
    """(url, handler) of the endpoint, whose `mode` a test may set."""
    Answers.mode = ""
    Answers.asked.clear()
    yield server, Answers
    Answers.mode = ""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of all stand-ins for programs, with files where their weights lie."""
    folder = tmp_path_factory.mktemp("programs") / "checkout"
    shutil.copytree(Path(__file__).parent / "programs", folder)
    weights = [f"{diffueraser.WEIGHTS}/{name}" for name in diffueraser.FILES]
    weights += [*recammaster.FILES, "models/ReCamMaster/checkpoints/step20000.ckpt"]
    weights += [f"weights/step1x-edit/{name}" for name in step1x_edit.FILES]
    for name in weights:
        path = folder / name.replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    cameras = {"frame0": {f"cam{number:02d}": number for number in range(1, 11)}}
    (folder / "example_test_data/cameras/camera_extrinsics.json").write_text(json.dumps(cameras))
    return folder


@pytest.fixture(scope="session")
def depth_weights(checkout: Path) -> Callable[..., None]:
    """`depth_weights(features)`: weights of Video-Depth-Anything's stand-in where the published file lies."""

    def write(features: int = 64) -> None:
        path = checkout / "checkpoints" / "video_depth_anything_vits.pth"
        path.parent.mkdir(exist_ok=True)
        head = torch.nn.Linear(features, 48 + 96 + 192 + 384)
        torch.save({f"head.{key}": value for key, value in head.state_dict().items()}, path)

    return write


@pytest.fixture(scope="session")
def remover_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Wan VAE and its scheduler in diffusers' layout, and files where the transformer lies."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler

    folder = tmp_path_factory.mktemp("minimax")
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    vae.save_pretrained(folder / "vae")
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / "transformer" / name).write_text("{}")
    return str(folder)


@pytest.fixture(scope="session")
def small(tiny: Callable[[str], str], server: str, checkout: Path) -> Callable[..., dict[str, Any]]:
    """`small(task, root)` -> the reference configuration of a task, with tiny models and open gates.

    Its structure is the published file's; only checkpoints, sizes and thresholds are others. Writers and
    captioners ask the endpoint, judges a tiny Qwen2-VL.
    """
    program = {"folder": str(checkout), "python": sys.executable, "timeout": 60}
    endpoint = {
        "class_path": "curation.vlm.endpoint.Endpoint",
        "init_args": {"url": server, "model": "m", "timeout": 5, "retries": 0},
    }
    camera = {"FRAMES": str(LENGTH), "SIZE": "64x96"}

    def changed(class_name: str) -> dict[str, Any]:
        return {
            "GroundingDino": {"checkpoint": tiny("grounding_dino"), "threshold": 0.0},
            "Sam2Hub": {"checkpoint": tiny("sam2")},
            "GroundedSam2": {"every": 8, "most": 2},
            "DepthAnything": {"checkpoint": tiny("depth_anything")},
            "QwenVl": {"checkpoint": tiny("qwen2_vl"), "pixels": 4 * 28 * 28},
            "WanVace": {"checkpoint": tiny("wan_vace"), "steps": 2},
            "DiffusersEditor": {
                "checkpoint": tiny("image_editor"),
                "steps": 2,
                "options": {"guidance_scale": 2.5, "max_area": 64 * 96, "_auto_resize": False},
            },
            "RtmPose": {"weights": tiny("rtmpose"), "size": [48, 64], "most": 2},
            "DiffuEraser": {"program": {**program, "script": "run_diffueraser.py"}},
            "ReCamMaster": {
                "program": {**program, "script": "inference_recammaster.py", "environment": camera},
                "frames": LENGTH,
                "size": [64, 96],
            },
            "Judge": {"thresholds": {}, "frames": 2, "run": 2},
            "PropagatedStyleTransfer": {"flicker": 1e9},
            "PoseToVideo": {"least": 0.0},
            "Customization": {"least": 1, "apart": 0.0, "side": 64},
        }.get(class_name, {})

    def walk(value: Any, root: Path) -> Any:
        if isinstance(value, list):
            return [walk(v, root) for v in value]
        if isinstance(value, str):
            return value.replace("data/shards/reference", str(root))
        if not isinstance(value, dict):
            return value
        value = {k: walk(v, root) for k, v in value.items()}
        if "class_path" in value:
            name = value["class_path"].rpartition(".")[2]
            inner = {**value.get("init_args", {}), **changed(name)}
            if name == "Writer":
                inner["vlm"] = endpoint
            if "length" in inner:
                inner |= {"length": LENGTH, "most": 1}
            if "finder" in inner:
                inner["gates"] = OPEN
            if "cut" in inner:
                inner["cut"] = {"box": [64, 96], "heldout_fraction": 0.0}
            value["init_args"] = inner
        return value

    def make(task: str, root: Path) -> dict[str, Any]:
        return walk(yaml.safe_load(default_config(task, "reference").read_text()), root)

    return make


LENGTH = 24
OPEN = {
    "confidence": 0.0,
    "area": [0.0, 1.0],
    "presence": 0.0,
    "steady": 1e9,
    "jump": 0.0,
    "border": 1.0,
    "preserved": 0.0,
    "changed": 0.0,
}


@pytest.fixture(scope="session")
def little_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video of 24 frames, 96x64."""
    folder, frames = tmp_path_factory.mktemp("little"), []
    y, x = np.mgrid[0:64, 0:96]
    for t in range(LENGTH):
        frame = np.stack([80 + x, 60 + 2 * y, 120 + x], -1) + 60 * np.sign(np.sin(x / 5))[..., None].clip(
            0, 255
        )
        frame[(x - 20 - 2 * t) ** 2 + (y - 30) ** 2 < 150] = (220, 40, 40)
        frames.append(frame.astype(np.uint8))
    write_video(folder / "ball.mp4", np.stack(frames), 10.0)
    return folder
