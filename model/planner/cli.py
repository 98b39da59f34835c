"""Commands about a training before it is run: what a model costs, how its steps are planned.

Apart from `model.cli`, which starts them; nothing heavy is imported before it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from model.config import ModelConfig
from model.data.mixture import read_mixture
from model.net.activation_checkpointing import Checkpointing
from model.net.frozen_linear import BaseDtype
from model.planner.balance import Budget, Cluster, largest_degree
from model.planner.base_plan import CLIP, BasePlan, report_base
from model.planner.calibrate import report as calibration_report
from model.planner.memory import Savings
from model.planner.report import report
from model.planner.summary import describe, with_widths
from shards.devices import choose_device
from shards.errors import SettingError
from shards.help_pages import help_page


def info(model: ModelConfig = ModelConfig(), tokens: tuple[int, ...] = (17_652, 34_342)) -> int:  # noqa: B008
    """Say how large a model is and how much work an edit is.

    Args:
        model: a configuration, e.g. --model configs/model/2b.yaml.
        tokens: lengths of sequences, half of which is the clip to be made.
    """
    describe(model, list(tokens))
    return 0


@help_page(
    sections={
        "from_base": (
            "what is trained on from published weights (--base)",
            ("samples", "frames", "height", "width", "lora_rank", "lora_base"),
        ),
        "memory": (
            "what the run does to need less memory",
            ("gather", "reshard", "optimizer", "offload"),
        ),
    }
)
def plan(
    mixture: Path | None = None,
    base: str | None = None,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    ranks: int | None = None,
    node: int = 8,
    degree: int | None = None,
    batch_size: int | None = None,
    token_budget: int = 65_536,
    flop_budget: float = float("inf"),
    steps: int = 20,
    first: int = 0,
    seed: int = 0,
    checkpointing: Checkpointing | None = None,
    tflops: float | None = None,
    picture: Path | None = None,
    cost: Path | None = None,
    lora_rank: int = 16,
    samples: int = 10_000,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    lora_base: BaseDtype = "float32",
    gather: Literal["float32", "bfloat16"] = "float32",
    reshard: bool = False,
    optimizer: Literal["adamw", "adamw8bit"] = "adamw",
    offload: Literal["none", "activations", "optimizer", "all"] = "none",
) -> int:
    """Plan training steps on a cluster and say how even they are and what they cost; nothing is loaded.

    Args:
        mixture: a file of configs/train/mixtures; needed unless there is a base.
        base: published weights to start from, by name (wan2.1_1.3b), repository or folder; then the cost of
            full and of LoRA training on 1, 8 and 64 GPUs is printed.
        model: whose work is planned, e.g. --model configs/model/2b.yaml; a base has its own.
        ranks: of the cluster; 8 when not given.
        node: ranks of a node.
        degree: most ranks that share a sequence, a power of two; as many as a node and the heads allow when
            not given.
        batch_size: samples per step; 256 when not given, 64 with a base.
        token_budget: most tokens of a micro-batch on one rank.
        flop_budget: most operations of a micro-batch on one rank.
        steps: how many are planned.
        first: number of the first one.
        seed: of the order and of lengths where there is no data.
        checkpointing: of activations, as for fit; none when not given, full with a base.
        tflops: operations per second that a device really does, in 10^12, to estimate the time from; 400 when
            not given with a base, as of an H100.
        picture: PNG to draw the plans into.
        cost: file that the command cost wrote, to plan by and to estimate the time from.
        lora_rank: of the adapter, with a base.
        samples: that are trained on from a base, for the GPU-hours.
        frames: of the clips of a pair, with a base and without a mixture; 81 when not given.
        height: of the same, in pixels; 480 when not given.
        width: of the same, in pixels; 832 when not given.
        lora_base: what the weights beside the adapter are kept in, with a base; see lora.base of fit.
        gather: see parallel.gather of fit; reshard, offload: the same.
        optimizer: see optim.method of fit.
    """
    budget = Budget(token_budget, flop_budget)
    mix = None if mixture is None else read_mixture(mixture)
    sides = {"--frames": frames, "--height": height, "--width": width}
    savings = Savings(gather, reshard, optimizer, offload)
    if offload in ("activations", "all") and (checkpointing or ("full" if base else "none")) != "full":
        raise SettingError(f"plan: --offload {offload} needs --checkpointing full")
    if base is None or mix is not None:
        _refuse(sides, "is of pairs of clips, with --base and without --mixture")
    if base is not None:
        own = {
            "--model": model != ModelConfig() or None,
            "--ranks": ranks,
            "--picture": picture,
            "--cost": cost,
        }
        _refuse(own, "has no use with --base")
        size, rate = 64 if batch_size is None else batch_size, 400.0 if tflops is None else tflops
        kept = checkpointing or "full"
        frames, height, width = (
            usual if given is None else given for given, usual in zip(sides.values(), CLIP, strict=True)
        )
        clip = (frames, height, width)
        asked = BasePlan(
            *(size, samples, budget, node, degree, kept, rate, lora_rank, steps, first, seed, clip),
            base=lora_base,
            savings=savings,
        )
        report_base(base, asked, mix)
        return 0
    if mix is None:
        raise SettingError("plan: name a --mixture to plan, or the --base to start from")
    ranks, size = 8 if ranks is None else ranks, 256 if batch_size is None else batch_size
    sizes = with_widths(model)
    heads = sizes.heads
    cluster = Cluster(ranks, node, degree or largest_degree(ranks, node, heads), heads)
    options = checkpointing or "none", tflops, picture, cost, model.extras, savings
    report(mix, sizes, cluster, budget, size, steps, first, seed, *options)
    return 0


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raise SettingError for the first option that is given, and has no use."""
    if unused := [name for name, given in options.items() if given is not None]:
        raise SettingError(f"plan: {unused[0]} {why}; leave it out")


def cost(
    out: Path,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    token_budget: int = 16_384,
    device: str = "auto",
    checkpointing: Checkpointing = "none",
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed",
    ranks: int | None = None,
) -> int:
    """Measure what micro-batches cost on this device, for plans by seconds (parallel.cost, plan --cost).

    Args:
        out: JSON file to write.
        model: whose blocks are timed, with random weights.
        token_budget: largest micro-batch.
        device: auto, cpu or cuda.
        checkpointing: of activations, as for fit.
        precision: as train.precision.
        ranks: processes that measure at a time, and share micro-batches for the cost of sending; a power of
            two. When not given, one on the CPU, and as many as there are CUDA devices and the heads allow.
    """
    import torch

    device, sizes = choose_device(device), with_widths(model)
    devices = torch.cuda.device_count() if device == "cuda" else 1
    most = largest_degree(ranks or devices, 8, sizes.heads)
    if ranks is not None and (ranks != most or (device == "cuda" and ranks > devices)):
        raise SettingError(
            f"cost: {ranks} ranks cannot share micro-batches: a power of two up to 8 that divides the "
            f"model's {sizes.heads} heads, on CUDA one device each ({devices} here)"
        )
    options = device, checkpointing, precision, out, model.extras, most
    calibration_report(sizes, token_budget, *options)
    return 0
