"""A run's resumable state: weights, their average, the optimizer's moments and the step, without pickle.

torch.distributed.checkpoint in its safetensors format: every rank writes what it holds, and any number of
ranks reads it. Lightning's own .ckpt is a pickle, which we never write.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

from model.training.module import EditModule
from model.training.optimizer import blank_state
from shards.errors import ConfigError
from shards.files import naming, write_json

FAULTS = (dcp.api.CheckpointException, SafetensorError, RuntimeError, ValueError, KeyError, OSError)
STATE = re.compile(r"^step-(\d{8})$")


class StateWriter:
    """Writes `folder/step-XXXXXXXX` and removes all but the newest `max_checkpoints`.

    Several ranks write in the background while training goes on; a single one writes at once. Everything is
    written and synced in a folder of another name, which is then renamed: a killed run leaves the state
    before or the state after, never half of one.
    """

    def __init__(
        self, folder: Path, module: EditModule, optimizer: torch.optim.Optimizer, max_checkpoints: int
    ) -> None:
        self.folder, self.module, self.optimizer = folder, module, optimizer
        self.max_checkpoints = max_checkpoints
        self._pending: tuple[Future[Any], Path] | None = None
        # its own process group: training communicates while a state is written
        self._group: Any = dist.new_group(backend="gloo") if module.world.world_size > 1 else None

    def save(self, wait: bool = False) -> None:
        """Begin to write the state; all ranks call it at the same step. `wait` sees it done."""
        self.finish()
        name = f"step-{self.module.done:08d}"
        if not (self.folder / name).is_dir():
            temporary = self.folder / f".{name}.tmp"
            if self.module.world.is_main_process:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
            writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
            tensors = tensors_of(self.module, self.optimizer)
            if self._group is None:
                with self._named(temporary), warnings.catch_warnings(action="ignore"):  # that it is one
                    dcp.save(tensors, storage_writer=writer, no_dist=True)
                self._complete(temporary)
            else:
                dist.barrier(self._group)
                future: Any = dcp.async_save(tensors, storage_writer=writer, process_group=self._group)
                self._pending = future, temporary
        if wait:
            self.finish()
            if self._group is not None:
                dist.barrier(self._group)

    def finish(self) -> None:
        """Wait until what is being written has its name."""
        if self._pending is not None:
            future, temporary = self._pending
            self._pending = None
            with self._named(temporary):
                future.result()
            if self.module.world.is_main_process:
                self._complete(temporary)

    def poll(self) -> None:
        """Give what has been written its name, if it is ready."""
        if self._pending is not None and self._pending[0].done():
            self.finish()

    @contextmanager
    def _named(self, temporary: Path) -> Iterator[None]:
        """Errors of writing, such as a full disk, name the state's folder."""
        with naming(self.folder / _final_name(temporary), temporary):
            try:
                yield
            except dcp.api.CheckpointException as error:  # no Exception; holds what any rank met
                raise RuntimeError(str(error)) from error

    def _complete(self, temporary: Path) -> None:
        name = _final_name(temporary)
        files = [p for p in temporary.rglob("*") if p.is_file()]
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sizes = {str(p.relative_to(temporary)): p.stat().st_size for p in files}
        write_json(temporary / "step.json", {"step": int(name.partition("-")[2]), "files": sizes})
        temporary.rename(self.folder / name)
        for old in states(self.folder)[: -self.max_checkpoints]:
            shutil.rmtree(old)


def _final_name(temporary: Path) -> str:
    return temporary.name.removeprefix(".").removesuffix(".tmp")


def tensors_of(module: EditModule, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that training continues from, by name."""
    # what is not trained is what the run starts from, and the average of itself
    trained = {n for n, p in module.dit.named_parameters() if p.requires_grad}
    tensors = {f"dit.{n}": p.detach() for n, p in module.dit.named_parameters() if n in trained}
    tensors |= {f"ema.{n}": p.detach() for n, p in module.ema.named_parameters() if n in trained}
    for name, parameter in module.dit.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adamw.{key}.{name}"] = torch.as_tensor(value)
    return tensors


def states(folder: Path) -> list[Path]:
    """Complete states, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if STATE.match(p.name))


def reached_step(run: Path) -> int:
    """The step of a run's newest state; 0 before the first."""
    saved = states(run / "state")
    return int(saved[-1].name.partition("-")[2]) if saved else 0


def load_state(path: Path, module: EditModule, optimizer: torch.optim.Optimizer) -> None:
    """Continue from a state; all ranks call it together.

    Raises:
        ConfigError: a file that is missing, damaged or of another model; the message names the state.
    """
    remedy = f"delete {path} to go back to an older state"
    try:
        about = json.loads((path / "step.json").read_text())
        step, files = int(about["step"]), about["files"]
        for name, size in files.items():
            if (path / name).stat().st_size != size:
                raise ConfigError(f"{path / name}: is not as long as it was written; {remedy}")
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: {error}; {remedy}") from error
    if step:
        blank_state(optimizer)
    tensors = tensors_of(module, optimizer)
    alone = module.world.world_size == 1
    try:
        with warnings.catch_warnings(action="ignore"):
            dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)
    except FAULTS as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: does not fit this model, or is damaged: {reason}; {remedy}") from error
    for parameter, moments in optimizer.state.items():
        if "step" in moments:
            moments["step"] = moments["step"].to(parameter.device)
    module.done = step
