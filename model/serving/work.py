"""What the workers of a service are, what they are given, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from model.acceleration.config import NO_SHORTCUTS, Shortcuts
from model.inference.edit import mask_path
from shards.devices import choose_device
from shards.limits import in_range

MAX_WORKERS = 64


@dataclass(frozen=True)
class WorkerConfig:
    """How every worker loads its editor.

    Attributes:
        checkpoint: see `Editor.from_pretrained`, as for the next four.
        dtype: of the weights; the file's when None.
        revision: branch, tag or commit of a hub id.
        lora: an adapter to merge.
        offload: parts come to the device one at a time.
        device: auto, cpu, cuda or cuda:1.
        workers: processes; 0 for one per GPU, or one on a CPU.
        shortcuts: of every edit that asks for no others.
    """

    checkpoint: str
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    revision: str | None = None
    lora: Path | None = None
    offload: bool = False
    device: str = "auto"
    workers: int = 0
    shortcuts: Shortcuts = NO_SHORTCUTS

    def __post_init__(self) -> None:
        in_range("workers", self.workers, 0, MAX_WORKERS)

    def devices(self) -> list[str]:
        """The device of every worker: the GPUs in turn, or the one that was named.

        Raises:
            SettingError: this machine has no such device.
        """
        device = choose_device(self.device)
        if device != "cuda":
            return [device] * (self.workers or 1)
        import torch

        count = torch.cuda.device_count()
        return [f"cuda:{number % count}" for number in range(self.workers or count)]


@dataclass(frozen=True)
class Work:
    """One edit for a worker.

    Attributes:
        id: its name, none twice in a pool.
        text: instruction with tags.
        media: files by the names of their tags.
        settings: keywords of `Editor.__call__`.
        out: mp4 or png to write.
    """

    id: str
    text: str
    media: Mapping[str, str]
    settings: Mapping[str, Any]
    out: str

    @property
    def mask(self) -> Path:
        """Where the mask that was used is written, if `keep` is asked for."""
        return mask_path(self.out, self.out.lower().endswith(".png"))


@dataclass(frozen=True)
class Outcome:
    """What became of an edit.

    Attributes:
        state: how it ended.
        line: what was made, or why nothing was, in one line.
        seconds: for which the worker was at it.
        has_mask: whether `Work.mask` was written.
    """

    state: Literal["done", "failed", "cancelled"]
    line: str
    seconds: float = 0.0
    has_mask: bool = False


@dataclass(frozen=True)
class EditorFacts:
    """What a worker says of its editor once it is loaded.

    Attributes:
        parameters: of the transformer.
        frames: of a window.
        multiple: what sides of a result divide by.
        defaults: of sampling, see `InferenceConfig`.
    """

    parameters: int
    frames: int
    multiple: int
    defaults: Mapping[str, Any] = field(default_factory=dict)


class Listener(Protocol):
    """Who hears of a pool's edits; called from the pool's threads, one at a time for each edit."""

    def started(self, id: str) -> None:
        """A worker has begun, or begun again."""

    def progressed(self, id: str, done: int, total: int) -> None:
        """So many solver steps are done."""

    def put_back(self, id: str, line: str) -> None:
        """Its worker has ended, as the line says, and it waits for another one."""

    def finished(self, id: str, outcome: Outcome) -> None:
        """It is over."""
