"""Settings of a training run: optimizer, length, and all of it together.

Apart from the code that uses them so that `--help` need not import Lightning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from model.config import MediaConfig, ModelConfig
from model.data.batch import DataConfig
from model.distillation.config import DistillConfig
from model.inference.lora import LoraConfig
from model.net.activation_checkpointing import Checkpointing
from shards.errors import SettingError


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule; the defaults are the paper's (section A.1).

    Attributes:
        method: `adamw`; `adamw8bit`, with its moments in 8 bits (`model.training.adamw8bit`); or `muon` for
            the matrices of the blocks and AdamW for all else (`model.training.optimizer`). One learning rate
            serves all.
        lr: peak; `final_lr` is reached at the last step along a cosine after `warmup` linear steps.
        eps: what AdamW adds to the root of the second moment. Far below a weight's usual gradient it changes
            nothing but weights whose gradient is rounding alone, which AdamW moves as far as any other.
        clip: norm of the gradient, applied only after warm-up (section A.1); 0 is off.
        max_skipped: a step whose gradient is not finite updates nothing; so many in a row end the run.
        ema: decay of the moving average of the weights, which is what is saved; 0 saves the weights.
        loss_reduction: what counts the same in the loss: every `sample` of a step, or every `token`. The
            paper's expectation is over samples, so `sample` is the default: under `token` a 35k-token video
            edit would weigh as much as 35 images, and the mixture's ratios (Table 10, counted in samples)
            would say little about what is learned. `token` suits data of one length, or fine-tuning on long
            video.
    """

    method: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = 8e-6
    final_lr: float = 1e-6
    warmup: int = 2000
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 0.01
    eps: float = 1e-8
    clip: float = 1.0
    max_skipped: int = 10
    ema: float = 0.999
    loss_reduction: Literal["sample", "token"] = "sample"

    def __post_init__(self) -> None:
        for name in ("lr", "final_lr", "warmup", "weight_decay", "clip"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"optim.{name} must be 0 or more, got {getattr(self, name)}")
        if not self.eps > 0:
            raise SettingError(f"optim.eps must be above 0, got {self.eps}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in (*self.betas, self.ema)):
            raise SettingError(
                "optim.betas (two) and optim.ema must be from 0 to below 1, "
                f"got {list(self.betas)} and {self.ema}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Length, precision and initial weights of a run, and what it saves.

    Attributes:
        steps: optimizer steps; the run's length is counted in steps, so that it is the same on any machine.
        seed: of weights, order, noise and everything else that is drawn.
        precision: Lightning's; `bf16-mixed` keeps weights and moments in fp32.
        threads: of torch; None leaves it to the environment.
        init_from: checkpoint (a folder or hub id) whose weights and model configuration are where training
            starts, as the paper starts from a pretrained model; published weights in diffusers' layout too
            (docs/bases.md). None starts from random weights.
        media: sizes to train and then edit at, in place of those of `init_from`.
        flow: fields of `FlowConfig` in place of those of `init_from`, such as `{shift: 3.0}`; what the output
            means (`prediction`) is the weights' own.
        rope: fields of `RopeConfig` in place of those of `init_from`, such as `{ntk: [1.0, 1.0, 2.0, 2.0]}`;
            how channels are shared out (`dims`, `source`) is the weights' own.
        source_phase: whether sources are told apart from the target by Bernini's phase, in place of what
            `init_from` does; for members of Wan's family, whose output without sources stays as it was.
        text: `both` puts the text among the tokens too, in place of what `init_from` does; for members of
            Wan's family, whose output stays as it was until the new weights are trained
            (`WanConfig.words`).
        deterministic: every operation in a fixed order, also on CUDA (slower there).
        save_every: steps between resumable states; max_checkpoints: how many of them, the newest ones, are
            left.
        validate_every: steps between rendered held-out pairs; num_val_samples: how many pairs are rendered.
            The averaged weights that render them best so far are kept in the run's folder `best`.
        validate_loss_every: steps between losses of held-out samples, which cost far less than renders (see
            `model.training.heldout_loss`); 0 computes none. num_loss_samples: how many samples of each row.
        wandb: project of Weights & Biases to log to as well; needs the package.
    """

    steps: int = 56_000
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    threads: int | None = None
    init_from: str | None = None
    media: MediaConfig | None = None
    flow: dict[str, Any] | None = None
    rope: dict[str, Any] | None = None
    source_phase: bool | None = None
    text: Literal["both"] | None = None
    deterministic: bool = False
    save_every: int = 100
    max_checkpoints: int = 2
    validate_every: int = 200
    num_val_samples: int = 4
    validate_loss_every: int = 100
    num_loss_samples: int = 4
    wandb: str | None = None

    def __post_init__(self) -> None:
        counts = ("steps", "save_every", "max_checkpoints", "validate_every", "num_val_samples")
        for name in (*counts, "num_loss_samples"):
            if getattr(self, name) < 1:
                raise SettingError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if self.validate_loss_every < 0:
            raise SettingError("train.validate_loss_every must be 0 (never) or a number of steps")
        for name in ("media", "flow", "rope", "source_phase", "text"):
            if self.init_from is None and getattr(self, name) is not None:
                raise SettingError(f"train.{name}: replaces what train.init_from says; set model instead")


@dataclass(frozen=True)
class ParallelConfig:
    """How a run uses its machines. A run can go on with another one: what is learned is the same, but for
    the rounding of `gather`.

    The processes are torchrun's or srun's, one per device.

    Attributes:
        sharding: one copy of weights, average and optimizer state is shared out among all ranks (`full`), or
            among those of a node and copied to every node (`hybrid`), or is on every rank (`ddp`).
        sequence_parallel: most ranks of a node that share a sequence; 1 never splits.
        gather: what the blocks' weights are sent in, and held in while they are whole: `bfloat16` halves both
            under `train.precision: bf16-mixed`, the only one that it goes with. Shards, moments and sums of
            gradients stay in float32; norms and modulation tables of the blocks are rounded.
        reshard: blocks give their weights up after the forward pass and gather them again in the backward
            pass (ZeRO-3), and gradients are summed after every micro-batch: a rank holds one block at a time
            and sends three times as much per micro-batch as otherwise per step.
        checkpointing: what the backward pass computes again instead of keeping it: `none`; `selective`, all
            but attention and the results of matrix products; `full`, whole blocks.
        offload: what waits in the memory of the CPU: `activations`, the inputs of the blocks between their
            forward and backward passes, with checkpointing `full`; `optimizer`, its state between steps; or
            `all` of it.
        compile: compile the blocks. Every micro-batch is padded to the token budget then, and the compiler
            already does what `selective` does.
        cost: file that `python -m model cost` wrote, to plan by measured seconds instead of operations; then
            `data.flop_budget` is in seconds too.
        peak_tflops: of a device in the precision used, for MFU; None logs no MFU. 989 for an H100 in bf16.
    """

    sharding: Literal["full", "hybrid", "ddp"] = "full"
    sequence_parallel: int = 1
    gather: Literal["float32", "bfloat16"] = "float32"
    reshard: bool = False
    checkpointing: Checkpointing = "none"
    offload: Literal["none", "activations", "optimizer", "all"] = "none"
    compile: bool = False
    cost: str | None = None
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        if self.sequence_parallel < 1 or (self.peak_tflops is not None and self.peak_tflops <= 0):
            raise SettingError("parallel.sequence_parallel and parallel.peak_tflops must be positive")
        if self.offload in ("activations", "all") and self.checkpointing != "full":
            raise SettingError(
                f"parallel.offload {self.offload}: needs parallel.checkpointing full, where a block's input "
                f"is all that is kept of it, not {self.checkpointing}"
            )
        if self.reshard and self.sharding == "ddp":
            raise SettingError(
                "parallel.reshard: under sharding ddp every rank has all weights; leave it out"
            )


@dataclass(frozen=True)
class FitConfig:
    """A whole training run; with `lora`, of an adapter to the weights of `train.init_from`.

    With `distill` a student of few steps is trained instead, see `model.distillation.objective`.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    lora: LoraConfig | None = None
    distill: DistillConfig | None = None

    def __post_init__(self) -> None:
        if self.parallel.gather == "bfloat16" and self.train.precision != "bf16-mixed":
            raise SettingError(
                f"parallel.gather: bfloat16 needs train.precision bf16-mixed, not {self.train.precision}"
            )
        if self.distill is not None and self.parallel.sequence_parallel > 1:
            raise SettingError("parallel.sequence_parallel: a teacher reads whole sequences; set it to 1")
