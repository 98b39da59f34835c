"""The teacher of a distillation: a frozen editor's transformer, guided, over part of the solver's times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.config import ModelConfig
from model.data.batch import MicroBatch
from model.distillation.config import DistillConfig
from model.flow.flow_matching import FlowConfig, to_velocity
from model.flow.guidance import chain
from model.inference.checkpoint import describe_checkpoint
from model.inference.editor import Editor
from model.inference.pretrained import find_checkpoint
from model.net.transformer import Transformer
from model.sequence.packing import PackedBatch
from shards.errors import ConfigError
from shards.serialization import to_dict


class PackedVelocity:
    """A frozen transformer on a pack, as a function of the targets' tokens and the sequences' times.

    What the clean tokens leave behind is computed once, where the transformer can (`prefill_context`).
    """

    def __init__(self, dit: Transformer, flow: FlowConfig, batch: PackedBatch) -> None:
        self.dit, self.flow, self.batch = dit, flow, batch
        self._context = dit.prefill_context(batch) if dit.caches_context else None

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """float32 [M, D] velocities of the target tokens `x` [M, D]; time: [S], of each sequence."""
        batch = self.batch
        vision = batch.vision.index_copy(0, batch.target_vision, x.to(batch.vision.dtype))
        timestep = torch.ones(batch.segments, device=x.device)
        timestep[batch.target_segment] = time
        output = self.dit(batch, vision, timestep, self._context)[0].float()
        return to_velocity(output, x, time[batch.target_sequence, None], self.flow)


@dataclass(frozen=True)
class Teacher:
    """A frozen editor's transformer and how it is guided.

    Attributes:
        guidance: scale of the guidance on the text; 1 is none.
        interval: first and last time at which it is applied, see `InferenceConfig.interval`.
    """

    dit: Transformer
    flow: FlowConfig
    guidance: float = 1.0
    interval: tuple[float, ...] = (0.0, 1.0)

    @torch.no_grad()
    def integrate(self, micro: MicroBatch, x: Tensor, grid: Tensor) -> Tensor:
        """Where the targets of a pack are at the end of a grid of times, by Euler's method.

        The unconditional branch is the sequence without its text, `MicroBatch.without_text`.

        Args:
            x: float32 [M, D], the target tokens at the first times.
            grid: float [S, k + 1] on the CPU, times of each sequence.

        Returns:
            float32 [M, D].
        """
        if not len(x):
            return x
        sequence = micro.batch.target_sequence
        conditional = PackedVelocity(self.dit, self.flow, micro.batch)
        other = None
        if self.guidance != 1 and micro.without_text is not None:
            other = PackedVelocity(self.dit, self.flow, micro.without_text)
        first, last = self.interval
        for time, after in zip(grid.T[:-1], grid.T[1:], strict=True):
            guided = (first <= time) & (time <= last)
            t = time.to(x)
            v = conditional(x, t)
            if other is not None and guided.any():
                here = guided.to(x.device)[sequence, None]
                v = torch.where(here, chain([other(x, t), v], [self.guidance]), v)
            x = x + (after - time).to(x)[sequence, None] * v
        return x


def check_teacher(config: DistillConfig, init_from: str | None, student: ModelConfig) -> None:
    """Raise ConfigError unless the teacher's tokens are those of the student; no weights are read."""
    if init_from is None:
        raise ConfigError("distill: needs weights to start from; name a checkpoint in train.init_from")
    if config.teacher is None:
        return
    teacher = describe_checkpoint(find_checkpoint(config.teacher))
    settings, wanted = to_dict(teacher), to_dict(student)
    for name in ("vae", "text_encoder", "sequence"):
        if settings[name] != wanted[name]:
            raise ConfigError(
                f"distill.teacher: {config.teacher} has another {name} than {init_from}, so that it reads "
                "other tokens; name a teacher with the same, or leave it out"
            )
    ours, theirs = student.network, teacher.network
    if type(ours) is not type(theirs):
        raise ConfigError(
            f"distill.teacher: {config.teacher} is of another family of transformers than {init_from}; "
            "name one of the same family, or leave it out"
        )
    for name in ("vision_dim", "text_dim"):
        if getattr(ours, name) != getattr(theirs, name):
            raise ConfigError(
                f"distill.teacher: {name} is {getattr(theirs, name)} in {config.teacher} and "
                f"{getattr(ours, name)} in {init_from}; name a teacher of the same shape of tokens"
            )


def load_teacher(
    config: DistillConfig, init_from: str, device: torch.device, precision: str, model: ModelConfig
) -> Teacher:
    """Read the teacher, whole on every rank: in bfloat16 where the student is trained in mixed precision.

    Args:
        model: the student's; a teacher that is the student's own start has its flow.

    Raises:
        ConfigError: see `Editor.from_pretrained`.
    """
    dtype: Literal["bfloat16", "float32"] = "bfloat16" if precision == "bf16-mixed" else "float32"
    editor = Editor.from_pretrained(config.teacher or init_from, device, dtype)
    held = editor.config.inference
    guidance = held.guidance if config.guidance is None else config.guidance
    flow = model.flow if config.teacher is None else editor.config.flow
    return Teacher(editor.dit, flow, guidance, held.interval)
