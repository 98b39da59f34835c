"""Settings of a training run: optimizer, length, and all of it together.

Apart from the code that uses them so that `--help` need not import Lightning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.config import ModelConfig
from model.data import DataConfig
from model.lora import LoraConfig


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule; the defaults are the paper's (section A.1).

    Attributes:
        lr: peak; `final_lr` is reached at the last step along a cosine after `warmup` linear steps.
        clip: norm of the gradient, applied only after warm-up (section A.1); 0 is off.
        ema: decay of the moving average of the weights, which is what is saved; 0 saves the weights.
        average: what counts the same in the loss: every `sample` of a step, or every `token`. The paper's
            expectation is over samples, so `sample` is the default: under `token` a 35k-token video edit
            would weigh as much as 35 images, and the mixture's ratios (Table 10, counted in samples) would
            say little about what is learned. `token` suits data of one length, or fine-tuning on long video.
    """

    lr: float = 8e-6
    final_lr: float = 1e-6
    warmup: int = 2000
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    average: Literal["sample", "token"] = "sample"


@dataclass(frozen=True)
class TrainConfig:
    """How long, how precise, and what is left on the way.

    Attributes:
        steps: optimizer steps; the run's length is counted in steps, so that it is the same on any machine.
        seed: of weights, order, noise and everything else that is drawn.
        precision: Lightning's; `bf16-mixed` keeps weights and moments in fp32.
        threads: of torch; None leaves it to the environment.
        start: checkpoint (a folder or hub id) whose weights and model configuration are where training
            starts, as the paper starts from a pretrained model; None starts from random weights.
        deterministic: every operation in a fixed order, also on CUDA (slower there).
        save_every: steps between resumable states.
        sample_every: steps between rendered held-out pairs; samples: how many pairs are rendered.
    """

    steps: int = 56_000
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    threads: int | None = None
    start: str | None = None
    deterministic: bool = False
    save_every: int = 100
    sample_every: int = 200
    samples: int = 4


@dataclass(frozen=True)
class FitConfig:
    """A whole training run; with `lora`, of an adapter to the weights of `train.start`."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    lora: LoraConfig | None = None
