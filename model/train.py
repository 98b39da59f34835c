"""Train an editor from shards: one run folder with curve, samples, state, checkpoint and summary.

`python -m model fit --config configs/train/nano.yaml` calls `fit`.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from model.checkpoint import load_state, save_state, states
from model.config import ConfigError, ModelConfig, load_config, to_dict
from model.data import Pairs, StepBatch, Steps, data_fingerprint, distinct_videos
from model.editor import Editor
from model.encoders import build, count_parameters, part
from model.encoders.transform import TransformCodec
from model.lit import EditModule
from model.lora import add_adapter, merge, save_adapter
from model.runs import Curve, claim, finished
from model.settings import FitConfig, TrainConfig
from model.watch import Rendered, codec_psnr, render_pairs

log = logging.getLogger(__name__)


class Watch(Callback):
    """Writes the curve, saves states and renders held-out pairs."""

    def __init__(self, folder: Path, config: TrainConfig, curve: Curve, heldout: Pairs | None) -> None:
        self.folder, self.config, self.curve, self.heldout = folder, config, curve, heldout
        self.seconds = 0.0  # in optimizer steps, since the run was started or resumed

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: StepBatch, index: int) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: StepBatch, index: int
    ) -> None:
        self.seconds += time.monotonic() - self._started
        tokens = sum(len(m.batch.gather) for m in batch.micro)
        self.curve.add(module.done, sum(len(m.keys) for m in batch.micro), tokens, module.row)
        if trainer.logger:
            trainer.logger.log_metrics(module.row, step=module.done)
        last = module.done == self.config.steps
        if module.done % self.config.save_every == 0 or last:
            save_state(self.folder / "state", module, module.optimizers().optimizer)
        if self.heldout and (module.done % self.config.sample_every == 0 or last):
            rendered = render(self.folder, module, self.heldout, self.config.samples)
            if trainer.logger:
                trainer.logger.log_metrics(rendered.metrics(), step=module.done)


def render(folder: Path, module: EditModule, heldout: Pairs, samples: int) -> Rendered:
    """Edit held-out pairs with the averaged weights; mp4s of source | edit | target in `folder/samples`."""
    editor = Editor(module.ema.eval(), module.config, heldout.codec, heldout.text)
    return render_pairs(editor, heldout, samples, folder / "samples", f"step-{module.done:06d}")


def fit(config: FitConfig, run: Path) -> dict[str, Any]:
    """Train, or resume, or find the run finished.

    Args:
        run: the run's folder. A finished run of the same configuration and data is reused, an interrupted one
            continues from its last state, another one's is refused.

    Returns:
        The summary, as `summary.json` holds it, with `reused` added.

    Raises:
        ConfigError: a setting or folder that cannot be used; shards.index.ShardError: unreadable shards.
    """
    from shards.files import write_json

    settings = to_dict(config)
    settings["data"].pop("shards")  # the same data may lie elsewhere
    identity = {"config": settings, "data": data_fingerprint(config.data.shards)}
    claim(run, identity)
    summary = finished(run)
    if summary is not None and (run / "checkpoint" / "model.safetensors").is_file():
        log.info("reusing %s: %d steps were done", run, summary["steps"])
        return {**summary, "reused": True}

    started = time.monotonic()
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    L.seed_everything(config.train.seed, verbose=False)
    base = starting_point(config)
    train, heldout, model = open_data(config, run, base)
    if base is not None and config.lora is not None:
        add_adapter(base.dit, config.lora)
    module = EditModule(model, config.optim, config.train.steps, base.dit if base else None)
    optimizer = module.configure_optimizers()
    saved = states(run / "state")
    if saved:
        load_state(saved[-1], module, optimizer)
        log.info("resuming %s at step %d", run, module.done)
    module.configure_optimizers = lambda: optimizer  # type: ignore[method-assign]  # with its moments
    resumed_at = module.done
    psnr = codec_psnr(train, 16)
    log.info("codec: %d channels, reconstruction %.1f dB", train.codec.channels, psnr)
    parameters = count_parameters(module.dit)
    log.info("model: %.2fM parameters, %d to %d tokens", parameters / 1e6, *bounds(train.lengths))

    curve = Curve(run / "curve.csv", module.done)
    watch = Watch(run, config.train, curve, heldout)
    steps = Steps(train, config.data, config.train.seed, module.done, config.train.steps)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator=config.train.accelerator,
        devices=1,
        deterministic=config.train.deterministic,
        precision=config.train.precision,
        logger=TensorBoardLogger(run, "tensorboard", version="", purge_step=module.done or None),
        callbacks=[watch, progress_bar()],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if len(steps):
        trainer.fit(module, DataLoader(steps, batch_size=None))
    curve.close()
    if module.done < config.train.steps:
        raise KeyboardInterrupt  # Lightning ends quietly on SIGINT; the run is not finished
    if config.lora is not None:
        save_adapter(module.ema, run / "adapter")
        merge(module.ema)
    Editor(module.ema.eval(), model, train.codec, train.text).save_pretrained(run / "checkpoint")
    result = {
        "run": str(run),
        "steps": module.done,
        "resumed_at": resumed_at,
        "samples": curve.samples,
        "tokens": curve.tokens,
        "parameters": parameters,
        "codec_psnr": round(psnr, 2),
        "first_loss": curve.first_loss,
        "last_loss": module.row.get("loss"),
        "step_seconds": round(watch.seconds, 2),
        "seconds": 0.0,
        "train_samples": len(train),
        "heldout_samples": len(heldout) if heldout else 0,
    }
    if heldout:
        result["heldout"] = render(run, module, heldout, min(16, len(heldout))).table()
    result["seconds"] = round(time.monotonic() - started, 2)
    write_json(run / "summary.json", result)
    return {**result, "reused": False}


def starting_point(config: FitConfig) -> Editor | None:
    """The editor whose weights training starts from, if any; ConfigError for settings that contradict it."""
    if config.train.start is None:
        if config.lora is not None:
            raise ConfigError("lora: an adapter needs weights to adapt; name a checkpoint in train.start")
        return None
    if config.model != ModelConfig():
        raise ConfigError("model: with train.start the model is the checkpoint's; leave this section out")
    editor = Editor.from_pretrained(config.train.start, dtype="float32")
    editor.dit.requires_grad_(True).train()
    return editor


def bounds(values: list[int]) -> tuple[int, int]:
    """(least, greatest)."""
    return min(values), max(values)


def progress_bar() -> Callback:
    """Lightning's rich bar, refreshed a few times a second."""
    from lightning.pytorch.callbacks import RichProgressBar

    return RichProgressBar(refresh_rate=1, leave=True)


def open_data(
    config: FitConfig, run: Path, base: Editor | None = None
) -> tuple[Pairs, Pairs | None, ModelConfig]:
    """Training pairs, held-out pairs (None when the shards have none), and the model's full configuration.

    The codec's statistics are measured on the training pairs once and kept in `model.json` of the run; they
    and all else are those of `base`, where training starts from one.
    """
    from shards.files import write_json
    from shards.index import ShardError

    model = base.config if base else config.model
    text = base.text if base else build(model.text)
    if (run / "model.json").is_file():
        model = load_config(run / "model.json")
    codec = build(model.codec)
    train = Pairs(config.data.shards, "train", model, codec, text)
    if isinstance(codec, TransformCodec) and "scale" not in model.codec.get("init_args", {}):
        codec = codec.fitted(distinct_videos(train, 64))
        model = dataclasses.replace(model, codec=part(model.codec["class_path"], **codec.init_args))
    width = codec.channels * model.sequence.patch**2
    for name, given, is_width in (
        ("vision_dim", model.dit.vision_dim, width),
        ("text_dim", model.dit.text_dim, text.width),
    ):
        if given not in (0, is_width):
            raise ConfigError(
                f"model.dit.{name} is {given}; the encoders give {is_width} (0 takes what they give)"
            )
    model = dataclasses.replace(
        model, dit=dataclasses.replace(model.dit, vision_dim=width, text_dim=text.width)
    )
    write_json(run / "model.json", to_dict(model))
    train.codec, train.model = codec, model
    try:
        heldout = Pairs(config.data.shards, "heldout", model, codec, text)
    except ShardError as error:
        log.info("no held-out pairs are rendered: %s", error)
        heldout = None
    return train, heldout, model
