"""`python -m model`: fit an editor, distil it, edit a video.

Bad input ends with one line on stderr and exit status 2.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from model.app.server import serve as serve_page
from model.app.service import AppConfig
from model.config import ModelConfig
from model.data.batch import DataConfig
from model.distillation.config import DistillConfig
from model.inference.bases import bases as known_bases
from model.inference.cli import edit
from model.inference.diffusers_export import export_adapter, export_diffusers
from model.inference.editor import Editor
from model.inference.lora import LoraConfig
from model.inference.pretrained import WEIGHTS, write_sums
from model.inference.templates import FORMS
from model.inference.wan_lora import FIRST as LORA_FILE
from model.net.distributed import exit_rank
from model.planner.cli import cost, info, plan
from model.serving.cli import batch, serve, token
from model.training.config import FitConfig, OptimConfig, ParallelConfig, TrainConfig
from model.training.precompute import precompute as precompute_samples
from model.training.precompute import precompute_text_counts
from model.training.publish import push
from model.training.slurm import SlurmConfig
from model.training.slurm import submit as submit_job
from shards.devices import choose_device
from shards.help_pages import help_page

COMMON = (  # settings of a training that the first page of the help shows
    "data.shards",
    "data.mixture",
    "data.batch_size",
    "data.token_budget",
    "data.workers",
    "model",
    "optim.lr",
    "train.steps",
    "train.seed",
    "train.precision",
    "train.accelerator",
    "train.init_from",
    "train.save_every",
    "parallel.sharding",
)
STOPPED = 85  # exit status of a run that a signal ended and that is to be started again
TRAIN_SECTIONS = {
    "train.start": (
        "weights to start from, and what of their configuration is changed",
        (
            "train.init_from",
            "train.media.help",
            "train.media",
            "train.flow",
            "train.rope",
            "train.source_phase",
            "train.text",
        ),
    ),
    "train.validation": (
        "what is measured of held-out samples, and how often",
        (
            "train.validate_every",
            "train.num_val_samples",
            "train.validate_loss_every",
            "train.num_loss_samples",
        ),
    ),
}
FIT_SECTIONS = {
    **TRAIN_SECTIONS,
    "distill": (
        "train a student of few steps, as the command distill does",
        ("distill.help", "distill"),
    ),
}


@help_page(COMMON, FIT_SECTIONS)
def fit(
    run: Path,
    data: DataConfig = DataConfig(),  # noqa: B008 (frozen)
    model: ModelConfig = ModelConfig(),  # noqa: B008
    optim: OptimConfig = OptimConfig(),  # noqa: B008
    train: TrainConfig = TrainConfig(),  # noqa: B008
    parallel: ParallelConfig = ParallelConfig(),  # noqa: B008
    lora: LoraConfig | None = None,
    distill: DistillConfig | None = None,
) -> int:
    """Train an editor on shards, resume an interrupted run, or reuse a finished one.

    Args:
        run: folder of the run.
        data: what is trained on.
        model: what is trained.
        optim: the optimizer and its schedule.
        train: length, precision, initial weights, and what is saved.
        parallel: how the processes of torchrun or srun share the work.
        lora: train an adapter to the weights of train.init_from instead of all of them.
        distill: train a student of few steps, as the command of that name does.
    """
    from model.training.trainer import Stopped  # brings lightning, which takes seconds
    from model.training.trainer import fit as train_editor  # brings lightning, which takes seconds

    try:
        summary = train_editor(FitConfig(data, model, optim, train, parallel, lora, distill), run)
    except Stopped as error:
        print(error, file=sys.stderr)
        return exit_rank(STOPPED)
    if "samples" in summary:  # rank 0
        print_summary(summary)
    return exit_rank(0)


@help_page(
    [name for name in COMMON if name not in ("model", "parallel.sharding")]
    + ["distill.steps", "distill.guidance"],
    TRAIN_SECTIONS,
)
def distill(
    run: Path,
    data: DataConfig = DataConfig(text_drop_prob=0.0),  # noqa: B008 (frozen)
    optim: OptimConfig = OptimConfig(),  # noqa: B008
    train: TrainConfig = TrainConfig(),  # noqa: B008
    parallel: ParallelConfig = ParallelConfig(),  # noqa: B008
    lora: LoraConfig | None = None,
    distill: DistillConfig = DistillConfig(),  # noqa: B008
) -> int:
    """Teach an editor, train.init_from, to edit in few steps without guidance; resume or reuse, as fit does.

    Args:
        run: folder of the run; its checkpoint edits in distill.steps steps by itself.
        data: what the student is shown.
        optim: the optimizer and its schedule.
        train: init_from names the editor; length, precision, and what is saved.
        parallel: how the processes of torchrun or srun share the work.
        lora: train an adapter to the weights of train.init_from instead of all of them.
        distill: the student's steps, and how it is taught.
    """
    return fit(run, data, ModelConfig(), optim, train, parallel, lora, distill)


@help_page(
    ["data.shards", "data.mixture", "model", "train.steps", "train.init_from", "slurm.nodes"], FIT_SECTIONS
)
def submit(
    run: Path,
    data: DataConfig = DataConfig(),  # noqa: B008 (frozen)
    model: ModelConfig = ModelConfig(),  # noqa: B008
    optim: OptimConfig = OptimConfig(),  # noqa: B008
    train: TrainConfig = TrainConfig(),  # noqa: B008
    parallel: ParallelConfig = ParallelConfig(),  # noqa: B008
    lora: LoraConfig | None = None,
    distill: DistillConfig | None = None,
    slurm: SlurmConfig = SlurmConfig(),  # noqa: B008
) -> int:
    """Submit a training run to SLURM, as a job that goes on by itself after preemption or a time limit.

    Args:
        run: folder of the run; a snapshot of code and configuration, and the logs, lie beside it.
        data: as for fit, like all that follow.
        model: what is trained.
        optim: the optimizer and its schedule.
        train: length, precision, initial weights, and what is saved.
        parallel: how the processes share the work.
        lora: train an adapter to the weights of train.init_from instead of all of them.
        distill: train a student of few steps, as the command of that name does.
        slurm: what the job asks for.
    """
    job, folder = submit_job(FitConfig(data, model, optim, train, parallel, lora, distill), run, slurm)
    print(f"job {job}: code, configuration and logs are in {folder}")
    return 0


@help_page(
    ["data.shards", "data.mixture", "data.latent_cache", "data.crops", "model", "train.init_from"],
    FIT_SECTIONS,
)
def precompute(
    data: DataConfig = DataConfig(),  # noqa: B008 (frozen)
    model: ModelConfig = ModelConfig(),  # noqa: B008
    optim: OptimConfig = OptimConfig(),  # noqa: B008
    train: TrainConfig = TrainConfig(),  # noqa: B008
    parallel: ParallelConfig = ParallelConfig(),  # noqa: B008
    lora: LoraConfig | None = None,
    distill: DistillConfig | None = None,
    run: Path | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
    part: int = 0,
    parts: int = 1,
    texts_only: bool = False,
) -> int:
    """Encode the training samples beforehand, into data.latent_cache; an interrupted call goes on.

    Args:
        data: as for fit, like the next seven; latent_cache is the folder to fill, crops says what of long
            videos.
        model: whose encoders are used.
        optim: not used.
        train: init_from names a checkpoint whose encoders are used instead.
        parallel: not used.
        lora: not used.
        distill: not used.
        run: not used.
        device: of the encoders: auto, cpu or cuda.
        dtype: that is stored.
        part: number of this call, from 0 on, where several share the shards.
        parts: how many they are.
        texts_only: encode nothing, and count the texts' tokens instead, beside the shards' columns.
    """
    config = FitConfig(data, model, optim, train, parallel, lora, distill)
    if texts_only:
        for folder, is_new in precompute_text_counts(config):
            print(f"{folder}: texts are counted" + ("" if is_new else " already"))
        return 0
    done = precompute_samples(config, choose_device(device), dtype, part, parts)
    print(
        f"{data.latent_cache}: {done.shards} shards encoded, {done.there} were there; "
        f"{done.samples} samples, {done.bytes / 2**20:.1f} MiB, {done.failed} left out"
    )
    return 0


def merge(checkpoint: str, lora: Path, out: Path) -> int:
    """Fold an adapter into a checkpoint's weights and save the result.

    Args:
        checkpoint: the checkpoint that the adapter was trained from.
        lora: the adapter's folder.
        out: folder of the new checkpoint.
    """
    Editor.from_pretrained(checkpoint, lora=lora).save_pretrained(out)
    print(f"{out}: {checkpoint} with {lora} merged")
    return 0


def export(
    checkpoint: str,
    out: Path,
    dtype: Literal["float32", "bfloat16", "float16"] = "float16",
    format: Literal["editverse", "diffusers"] = "editverse",
) -> int:
    """Store a checkpoint to be passed on: in half precision, with SHA256SUMS that are checked on loading.

    Args:
        checkpoint: folder with config.json and model.safetensors, or a finished run's folder.
        out: folder of the copy.
        dtype: of its weights.
        format: diffusers writes the layout of published weights, for checkpoints of Wan's family; of a run
            that trained an adapter its LoRA file, for WanPipeline.load_lora_weights.
    """
    adapter = Path(checkpoint) / "adapter"
    if format == "diffusers" and (adapter / LORA_FILE).is_file():
        files = export_adapter(adapter, out, getattr(torch, dtype))
        size = sum(file.stat().st_size for file in files) / 1e6
        print(f"{out}: {' and '.join(file.name for file in files)}, {size:.1f} MB in {dtype}")
        return 0
    if format == "diffusers":
        folder = export_diffusers(Editor.from_pretrained(checkpoint, dtype=dtype), out)
        print(f"{folder}: a pipeline in diffusers' layout, in {dtype}")
        return 0
    folder = Editor.from_pretrained(checkpoint, dtype=dtype).save_pretrained(out)
    write_sums(folder)
    print(f"{folder}: {(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB in {dtype}")
    return 0


def forms() -> int:
    """List the paper's task forms with an example text each."""
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "text", "media", "paper", title="task forms")
    for form in FORMS:
        media = "; ".join(f"{name}: {what}" for name, what in form.media.items())
        table.add_row(form.name, form.filled, media, form.source)
    Console().print(table, markup=False)
    return 0


def bases() -> int:
    """List published weights that an edit can be made with: licence, size, memory, and what is downloaded."""
    from rich.table import Table

    from shards.terminal import print_table  # brings rich, not needed to train

    table = Table("weights", "licence", "use", "parameters", "GiB to edit", "here", title="open weights")
    for base in known_bases():
        size = f"{base.parameters / 1e9:.2f} B"
        here = "yes" if base.is_cached() else "no"
        table.add_row(base.repository, base.licence, base.use, size, f"{base.edit_gib:.1f}", here)
    print_table(table)
    return 0


def app(
    checkpoint: str,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str = "auto",
    offload: bool = False,
    queue: int = 8,
    max_upload_mb: int = 200,
    max_frames: int = 300,
    max_stored_mb: int = 4000,
    allowed_hosts: list[str] = [],  # noqa: B006 (never changed)
) -> int:
    """Serve a page that edits uploaded videos and images.

    Args:
        checkpoint: folder with config.json and model.safetensors, a finished run's folder, or a hub id.
        host: address to listen on; anything but the loopback address lets others use this machine.
        port: to listen on.
        device: of the model: auto, cpu or cuda.
        offload: have encoders and transformer on the device one at a time, for a small card.
        queue: edits that may wait; more are refused.
        max_upload_mb: largest file that is taken, in megabytes.
        max_frames: longest video that is edited.
        max_stored_mb: uploads and results that are kept at a time, in megabytes.
        allowed_hosts: names under which a proxy serves the page, besides localhost and the host.
    """
    device = choose_device(device)
    limits = (queue, max_upload_mb, max_frames, max_stored_mb)
    config = AppConfig(host, port, *limits, tuple(allowed_hosts))
    serve_page(Editor.from_pretrained(checkpoint, device, offload=offload), config)
    return 0


def print_summary(summary: dict[str, Any]) -> None:
    """Print what `summary.json` holds."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if summary["reused"]:
        console.print(f"reusing {summary['run']}", highlight=False)
    table = Table("", "", title=f"training run {summary['run']}", show_header=False)
    for name in (
        "steps",
        "samples",
        "tokens",
        "parameters",
        "codec_psnr",
        "first_loss",
        "last_loss",
        "step_seconds",
        "seconds",
        "train_samples",
        "heldout_samples",
    ):
        value = summary[name]
        if value is None:  # a published codec is not measured
            continue
        table.add_row(name.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    console.print(table)
    if summary.get("heldout"):
        table = Table("task", "result", "pairs", "PSNR inside", "PSNR outside", title="held-out pairs, dB")
        for row in summary["heldout"]:
            table.add_row(*("-" if row[c] is None else str(row[c]) for c in row))
        console.print(table)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    from jsonargparse import auto_cli

    from shards.command import Parser, only_named, run_command  # brings jsonargparse, not needed to train

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in (
        "httpx",
        "httpx2",
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    commands: dict[str, Any] = {
        "fit": fit,
        "distill": distill,
        "precompute": precompute,
        "submit": submit,
        "edit": edit,
        "app": app,
        "serve": serve,
        "token": token,
        "batch": batch,
        "merge": merge,
        "export": export,
        "push": push,
        "forms": forms,
        "bases": bases,
        "info": info,
        "plan": plan,
        "cost": cost,
    }
    words = sys.argv[1:] if argv is None else argv
    return run_command(
        lambda: auto_cli(
            only_named(commands, words),
            args=words,
            as_positional=False,
            prog="python -m model",
            parser_class=Parser,
        )
    )
