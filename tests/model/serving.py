"""Parts of the tests of the service: a tiny editor on disk, and clients."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from model.config import InferenceConfig, MediaConfig, ModelConfig
from model.encoders import part
from model.inference.checkpoint import save_checkpoint
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.rope import RopeConfig
from shards.media import write_video

SIZE = (32, 48)
LONG = 10_000  # solver steps of an edit that is not to end by itself


def tiny_checkpoint(folder: Path) -> Path:
    """Random weights; 32x48 pixels, windows of five frames, two steps without guidance."""
    config = ModelConfig(
        vae=part("model.encoders.transform.TransformCodec", keep=[[3, 1], [1, 0]]),
        dit=DiTConfig(
            text_dim=384, vision_dim=24, width=32, depth=1, heads=2, rope=RopeConfig(dims=(4, 4, 4, 4))
        ),
        media=MediaConfig(min_area=SIZE[0] * SIZE[1], max_area=SIZE[0] * SIZE[1], frames=5),
        inference=InferenceConfig(steps=2, guidance=1.0),
    )
    torch.manual_seed(0)
    dit = DiT(config.dit)
    with torch.no_grad():
        dit.out.weight.normal_(std=0.2)
    save_checkpoint(dit, config, folder)
    return folder


def tiny_video(path: Path, frames: int = 5) -> Path:
    """Noise at ten frames per second."""
    pixels = np.random.default_rng(0).integers(0, 255, (frames, *SIZE, 3), dtype=np.uint8)
    write_video(path, pixels, 10.0)
    return path


class ServiceClient:
    """A client with a token of its own."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url, self.token = url, token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60)

    def submit(self, video: Path, text: str = "<video1> Go.", **settings: Any) -> httpx.Response:
        """Submit an edit of a video."""
        data = {"text": text, "settings": json.dumps(settings)}
        return self.http.post("/v1/edits", data=data, files={"video1": (video.name, video.read_bytes())})

    def status(self, id: str) -> dict[str, Any]:
        """Where an edit stands."""
        answer = self.http.get(f"/v1/edits/{id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, id: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        """The status of an edit once it is in one of these states, or over."""
        deadline = time.monotonic() + seconds
        while (status := self.status(id))["state"] not in (*states, "done", "failed", "cancelled"):
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
        return status
