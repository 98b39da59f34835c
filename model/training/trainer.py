"""Train an editor from shards: one run folder with curve, samples, state, checkpoint and summary.

`python -m model fit --config configs/train/nano.yaml` calls `fit`.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from model.config import ModelConfig
from model.data.batch import Groups, data_fingerprint, rows_of
from model.data.dataset import EditDataset
from model.encoders.transform import TransformCodec
from model.inference.lora import add_adapter
from model.net.activation_checkpointing import prepare_blocks
from model.net.distributed import World, init_distributed, main_process_first
from model.net.frozen_linear import count_weights
from model.net.transformer import Transformer
from model.planner.balance import BalanceError, Cluster
from model.planner.cost import cost_of
from model.training.callbacks import TrainingMonitor, export, render
from model.training.checkpoint import StateWriter, load_state, reached_step, states
from model.training.cluster_environment import ExternalProcesses
from model.training.config import FitConfig
from model.training.dataloader import PlannedSteps, SampleError
from model.training.exchange import message_of
from model.training.heldout_loss import heldout_loss_of
from model.training.module import EditModule
from model.training.optimizer import offloaded
from model.training.run_card import record_provenance
from model.training.run_dir import MetricsCsv, claim, finished, record_model, requested
from model.training.setup import (
    build_datasets,
    distillation_of,
    init_model,
    load_init_weights,
    warn_of_slow_bfloat16,
)
from model.training.validation import codec_psnr
from model.training.workers import loader
from shards.devices import choose_device
from shards.errors import ConfigError, EditVerseError
from shards.files import exclusive, is_unused, naming, write_json
from shards.serialization import to_dict

log = logging.getLogger(__name__)

READING = ("workers", "prefetch", "on_error", "latent_cache", "cache_gib")  # how data is read, not which


class Stopped(EditVerseError, RuntimeError):
    """A signal ended the run; its state is saved, and the same command goes on."""


def fit(config: FitConfig, run: Path) -> dict[str, Any]:
    """Train, or resume, or find the run finished; alone, or as one of the processes of torchrun or srun.

    Args:
        run: the run's folder. A finished run of the same configuration and data is reused, an interrupted one
            continues from its last state, another one's is refused.

    Returns:
        The summary, as `summary.json` holds it, with `reused` added.

    Raises:
        ConfigError: a setting or folder that cannot be used; shards.index.ShardError: unreadable shards;
        SampleError: a sample that cannot be read, unless such are replaced; Stopped: by a signal.
    """
    accelerator = config.train.accelerator
    if accelerator in ("cuda", "gpu"):
        choose_device("cuda", "train.accelerator")
    with init_distributed(accelerator) as world:
        return _fit(config, run, world)


@contextmanager
def locked(run: Path, world: World) -> Iterator[None]:
    """Hold the run's folder, by rank 0 for all; InUseError when another run holds it."""
    # what is no run's folder is refused by name later, without a lock left in it
    if not world.is_main_process or not (is_unused(run) or (run / "run.json").is_file()):
        yield
        return
    with exclusive(run, "--run"):
        yield


def identity_of(config: FitConfig) -> dict[str, Any]:
    """What makes a run this run: all settings but where its data lies, and how and on what it is computed.

    With `train.init_from` the model is the checkpoint's, so that there is no model among the settings.
    """
    return requested({"config": _settings(config), "data": data_fingerprint(rows_of(config.data))})


def default_identity() -> dict[str, Any]:
    """`identity_of` a run without any settings, on no data."""
    config: dict[str, Any] = json.loads(json.dumps(_settings(FitConfig())))
    return {"config": config}


def _settings(config: FitConfig) -> dict[str, Any]:
    """All settings but where the data lies, and how and on what the run is computed."""
    settings: dict[str, Any] = to_dict(config)
    del settings["parallel"]
    for name in ("shards", "mixture", "token_budget", "flop_budget", *READING):
        del settings["data"][name]
    for name in ("max_checkpoints", "threads", "wandb"):
        del settings["train"][name]
    return settings


def _fit(config: FitConfig, run: Path, world: World) -> dict[str, Any]:
    # what is wrong with the settings or the data is said before there is a folder
    cluster = cluster_of(config, world)
    identity = identity_of(config)
    if world.is_main_process:
        warn_of_slow_bfloat16(config, world.device(config.train.accelerator))
    with locked(run, world):
        return _train(config, run, world, cluster, identity)


def _take(steps: PlannedSteps, module: EditModule, trainer: L.Trainer, run: Path, accelerator: str) -> None:
    """Take the steps that are left; errors name their file."""
    ahead = loader(steps, module.world.device(accelerator), module.world)
    try:
        with naming(run):  # a logger's thread names no file
            trainer.fit(module, ahead)
    except SampleError as error:
        raise SampleError(message_of(error)) from error
    finally:
        if not isinstance(ahead, DataLoader):
            ahead.close()  # Lightning ends the workers of a DataLoader alone


def _load(
    config: FitConfig, run: Path, world: World
) -> tuple[EditDataset, EditDataset | None, EditModule, torch.optim.Optimizer]:
    """Samples to train on and held-out ones, network and optimizer, as the run's last state left them."""
    base = load_init_weights(config)
    with main_process_first(world):
        train, heldout, model = build_datasets(config, run)
        if world.is_main_process:
            record_model(run, model)
            record_provenance(run, rows_of(config.data))
    if config.data.latent_cache is not None:
        train.read_latent_cache(config.data.latent_cache, config.data)
    module, optimizer = make_module(config, model, base, world, train.groups)
    saved = states(run / "state")
    if saved:
        load_state(saved[-1], module, optimizer)
        log.info("resuming %s at step %d", run, module.done)
    return train, heldout, module, optimizer


def _log_sizes(train: EditDataset, module: EditModule) -> tuple[float | None, int]:
    """Say what is trained on what; the offline codec's PSNR in dB and the network's parameters."""
    # a published autoencoder is known, and takes minutes
    psnr = codec_psnr(train, 16) if isinstance(train.vae, TransformCodec) else None
    measured = "" if psnr is None else f", reconstruction {psnr:.1f} dB"
    log.info("codec: %d channels%s", train.vae.channels, measured)
    parameters = count_weights(module.dit)
    log.info("model: %.2fM parameters, %d to %d vision tokens", parameters / 1e6, *train.vision_bounds())
    return psnr, parameters


def _check_all_done(module: EditModule, steps: int, run: Path) -> None:
    """Raise Stopped or KeyboardInterrupt where the steps ended before the last one."""
    if module.done < steps:
        if module.stopping and not module.interrupted:
            raise Stopped(
                f"{run}: stopped by a signal after step {module.done}; run the same command to go on"
            )
        raise KeyboardInterrupt  # also where Lightning ended quietly on a second one


def _train(
    config: FitConfig, run: Path, world: World, cluster: Cluster, identity: dict[str, Any]
) -> dict[str, Any]:
    reached = reached_step(run)
    if reached > config.train.steps:
        raise ConfigError(
            f"train.steps: {run} has taken {reached} steps, more than {config.train.steps}; "
            "choose another --run"
        )
    with main_process_first(world):
        claim(run, identity, default_identity(), reached)
    summary = finished(run)
    done = summary is not None and summary["steps"] >= config.train.steps
    if summary is not None and done and (run / "checkpoint" / "model.safetensors").is_file():
        log.info("reusing %s: %d steps were done", run, summary["steps"])
        return {**summary, "reused": True}

    started = time.monotonic()
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    L.seed_everything(config.train.seed, verbose=False)
    train, heldout, module, optimizer = _load(config, run, world)
    resumed_at = module.done
    psnr, parameters = _log_sizes(train, module)
    steps = PlannedSteps(
        train,
        config.data,
        config.train.seed,
        module.done,
        config.train.steps,
        cluster,
        world.rank,
        cost_of(module.config.network, config.parallel.checkpointing == "full", config.parallel.cost),
        fixed=config.parallel.compile,
        equal=config.parallel.reshard,
    )
    validate_loss = heldout_loss_of(config, heldout)
    columns = validate_loss.names if validate_loss else []
    curve = MetricsCsv(run / "curve.csv", module.done, columns) if world.is_main_process else None
    writer = StateWriter(run / "state", module, optimizer, config.train.max_checkpoints)
    watch = TrainingMonitor(run, config, curve, writer, heldout, validate_loss)
    if len(steps):
        _take(steps, module, trainer_of(config, run, world, module, watch), run, config.train.accelerator)
    writer.finish()
    _check_all_done(module, config.train.steps, run)
    export(module, config, run / "checkpoint", run / "adapter")
    shown = render(run, module, heldout, min(16, len(heldout))).table() if heldout else None
    result: dict[str, Any] = {"run": str(run), "steps": module.done, "reused": False}
    if curve is not None:
        curve.close()
        result |= {
            "resumed_at": resumed_at,
            "samples": curve.samples,
            "tokens": curve.tokens,
            "parameters": parameters,
            "codec_psnr": None if psnr is None else round(psnr, 2),
            "first_loss": curve.first_loss,
            "last_loss": module.metrics.get("loss"),
            "step_seconds": round(watch.seconds, 2),
            "seconds": round(time.monotonic() - started, 2),
            "train_samples": len(train),
            "heldout_samples": len(heldout) if heldout else 0,
        }
        if shown is not None:
            result["heldout"] = shown
        write_json(run / "summary.json", {k: v for k, v in result.items() if k != "reused"})
    return result


def cluster_of(config: FitConfig, world: World) -> Cluster:
    """The run's ranks as the planner sees them; raises ConfigError for settings that do not fit them."""
    degree, model = config.parallel.sequence_parallel, init_model(config)
    if degree > 1 and model.extras.copy_bias:
        raise ConfigError(
            "parallel.sequence_parallel: a copy head (model.extras.copy_bias) compares all of a sequence's "
            "tokens, so that no ranks can share one; set it to 1"
        )
    try:
        return Cluster(world.world_size, world.local_world_size, degree, model.network.heads)
    except BalanceError as error:
        raise ConfigError(
            f"parallel.sequence_parallel {degree} on {world.world_size} ranks: {error}"
        ) from error


def make_module(
    config: FitConfig, model: ModelConfig, base: Transformer | None, world: World, groups: Groups
) -> tuple[EditModule, torch.optim.Optimizer]:
    """What is trained, shared out among the ranks, and its optimizer."""
    if base is not None and config.lora is not None:
        add_adapter(base, config.lora)
    module = EditModule(model, config.optim, config.train.steps, base, world)
    module.lora, module.groups = config.lora, groups
    module.distillation = distillation_of(config, model, world.device(config.train.accelerator))
    parallel = config.parallel
    inputs, state = (parallel.offload in (kind, "all") for kind in ("activations", "optimizer"))
    prepare_blocks(module.dit, parallel.checkpointing, parallel.compile, inputs)
    if world.world_size > 1:
        module.shard(parallel, world.device(config.train.accelerator).type)
    if state:
        optimizer: torch.optim.Optimizer = offloaded(module.dit.named_parameters(), config.optim)
    else:
        optimizer = module.configure_optimizers()
    module.configure_optimizers = lambda: optimizer  # type: ignore[method-assign]  # with its moments
    return module, optimizer


def trainer_of(
    config: FitConfig, run: Path, world: World, module: EditModule, watch: TrainingMonitor
) -> L.Trainer:
    """Lightning's trainer of one epoch; rank 0 alone shows and logs."""
    from lightning.pytorch.strategies import ModelParallelStrategy

    loggers: list[Logger] = []
    if world.is_main_process:
        loggers.append(TensorBoardLogger(run, "tensorboard", version="", purge_step=module.done or None))
        if config.train.wandb:
            loggers.append(wandb_logger(config, run))
    return L.Trainer(
        max_epochs=1,
        log_every_n_steps=1,
        accelerator=config.train.accelerator,
        devices=world.local_world_size,
        num_nodes=world.world_size // world.local_world_size,
        strategy=ModelParallelStrategy(world.world_size, 1) if world.world_size > 1 else "auto",
        plugins=[ExternalProcesses(world)],
        deterministic=config.train.deterministic,
        precision=config.train.precision,
        logger=loggers,
        callbacks=[watch, *([progress_bar()] if world.is_main_process else [])],
        enable_progress_bar=world.is_main_process,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def wandb_logger(config: FitConfig, run: Path) -> Logger:
    """Of Weights & Biases; a run that is resumed goes on there too."""
    from lightning.pytorch.loggers import WandbLogger

    name = re.sub(r"[^A-Za-z0-9_-]+", "-", str(run)).strip("-")
    try:
        return WandbLogger(name=name, id=name, project=config.train.wandb, save_dir=run, resume="allow")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "train.wandb: the package wandb is not installed; install it, or leave it out"
        ) from error


def progress_bar() -> Callback:
    """Lightning's rich bar, refreshed a few times a second, with the loss of the step before."""
    from lightning.pytorch.callbacks import RichProgressBar

    class LossBar(RichProgressBar):
        def get_metrics(self, trainer: L.Trainer, module: Any) -> dict[str, Any]:
            # a number that is here already: Lightning's own log copies it to the device and back
            return {"loss": module.metrics["loss"]} if "loss" in module.metrics else {}

    return LossBar(refresh_rate=1, leave=True)
