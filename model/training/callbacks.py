"""What is seen of a running training, and what it leaves: curve, metrics, states, held-out edits."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from model.data.batch import StepBatch, collate
from model.data.dataset import EditDataset
from model.inference.checkpoint import save_checkpoint
from model.inference.editor import Editor
from model.inference.lora import add_adapter, merge, save_adapter
from model.inference.offload import Offload, Releasable, let_go
from model.net.families import build_transformer
from model.net.transformer import Transformer
from model.training.checkpoint import StateWriter
from model.training.config import FitConfig
from model.training.dataloader import EMPTY
from model.training.heldout_loss import HeldoutLoss
from model.training.lockstep import lockstep
from model.training.module import EditModule
from model.training.run_dir import MetricsCsv
from model.training.setup import load_init_weights
from model.training.validation import Rendered, render_pairs
from shards.files import write_json
from shards.processes import interrupts
from shards.processes import peak_memory as resident_peak

STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class TrainingMonitor(Callback):
    """Writes the curve, saves states, renders held-out pairs, keeps the best weights, and ends on a signal.

    SIGTERM, SIGUSR1 (SLURM's notice that the time is nearly up) and Ctrl-C to any rank end the run after the
    step that is being taken, with its state saved; a second Ctrl-C ends it at once.
    """

    def __init__(
        self,
        folder: Path,
        config: FitConfig,
        curve: MetricsCsv | None,
        writer: StateWriter,
        heldout: EditDataset | None,
        heldout_loss: HeldoutLoss | None = None,
    ) -> None:
        self.folder, self.config, self.curve = folder, config, curve
        self.writer, self.heldout, self.heldout_loss = writer, heldout, heldout_loss
        self.seconds = 0.0  # in optimizer steps, since the run was started or resumed
        self._ended: float | None = None  # when the last step, and all that follows it, was done
        self._handlers: dict[int, Any] = {}  # of signals, before the training

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        def wanted(number: int, _: Any) -> None:
            if number == signal.SIGINT:
                signal.signal(number, signal.default_int_handler)
                module.interrupted = True
            module.stop_requested = True

        for number in STOPS:  # in place of Lightning's own
            self._handlers[number] = signal.signal(number, wanted)
        if interrupts():  # before, and a library dropped the exception
            wanted(signal.SIGINT, None)

    def teardown(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: StepBatch, index: int) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: StepBatch, index: int
    ) -> None:
        now, config = time.monotonic(), self.config.train
        waited = self._started - (self._ended if self._ended is not None else self._started)
        self.seconds += now - self._started
        seen: dict[str, float] = {}
        # also where the run is about to stop, so that its curve is that of a run that did not
        if self.heldout_loss is not None and module.done % config.validate_loss_every == 0:
            seen = self.heldout_loss(module, trainer.precision_plugin.val_step_context())
        if self.curve is not None:
            tokens = int(module.metrics["tokens"])
            self.curve.add(module.done, batch.samples, tokens, module.metrics | seen)
        if trainer.logger:
            metrics = (
                module.metrics
                | module.losses_by_group
                | self.rates(batch, module, now - self._started, waited)
                | seen
            )
            trainer.logger.log_metrics(metrics, step=module.done)
        last = module.done == config.steps
        self.writer.poll()
        if module.done % config.save_every == 0 or last or module.stopping:
            self.writer.save(wait=last or module.stopping)
        if module.stopping and not last:
            trainer.should_stop = True
        elif self.heldout and (module.done % config.validate_every == 0 or last):
            self.validate(trainer, module)
        self._ended = time.monotonic()

    def rates(self, batch: StepBatch, module: EditModule, taken: float, waited: float) -> dict[str, float]:
        """Speed of a step that took `taken` seconds after `waited` for its data, and how it was planned.

        MFU counts three forward passes of the blocks per step, with every pair of tokens of a sequence in
        attention, none across sequences, and nothing that is computed again.
        """
        seconds = taken + waited
        values = {f"plan/{name}": value for name, value in batch.plan.items() if name != "flops"}
        values |= {
            "speed/tokens_per_second": module.metrics["tokens"] / seconds,
            "speed/samples_per_second": batch.samples / seconds,
            "speed/loader_wait": waited / seconds,
            "memory/peak_gib": peak_memory(module.device) / 2**30,
        }
        if self.config.parallel.peak_tflops and "flops" in batch.plan:
            able = self.config.parallel.peak_tflops * 1e12 * module.world.world_size
            values["speed/mfu"] = batch.plan["flops"] / seconds / able
        return values

    def validate(self, trainer: L.Trainer, module: EditModule) -> None:
        """Render held-out pairs; keep the weights if none before rendered them better."""
        assert self.heldout is not None
        rendered = render(self.folder, module, self.heldout, self.config.train.num_val_samples)
        if trainer.logger:
            trainer.logger.log_metrics(rendered.metrics(), step=module.done)
        best, score = self.folder / "best.json", rendered.score()
        if score is None or (best.is_file() and json.loads(best.read_text())["psnr"] >= score):
            return
        export(module, self.config, self.folder / "best")
        if module.world.is_main_process:
            write_json(best, {"step": module.done, "psnr": score})


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: allocated on a CUDA device, resident in memory otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_peak()


def render(folder: Path, module: EditModule, heldout: EditDataset, samples: int) -> Rendered:
    """Edit held-out pairs with the averaged weights; mp4s of source | edit | target in `folder/samples`.

    All ranks call it together, share the pairs, and gather the weights block by block as they go. Encoders
    that can be read again come to the device one at a time and leave it afterwards: training may have no room
    for them.
    """
    world, encoders = module.world, (heldout.vae, heldout.text_encoder)
    ema, offload = module.ema.eval(), None
    if all(isinstance(encoder, Releasable) for encoder in encoders):
        offload = Offload(module.device, ema, stays=True)
    editor = Editor(ema, module.config, *encoders, offload)
    name = f"step-{module.done:06d}"
    with lockstep(ema, lambda: _run_empty(ema, heldout)):
        rendered = render_pairs(
            editor, heldout, samples, folder / "samples", name, (world.rank, world.world_size)
        )
    let_go(*encoders)  # samples are encoded on the CPU, before and after
    if world.world_size > 1:
        parts: list[Any] = [None] * world.world_size
        dist.all_gather_object(parts, rendered)
        rendered = Rendered([row for part in parts for row in part.rows])
    return rendered


@torch.inference_mode()
def _run_empty(network: Transformer, pairs: EditDataset) -> None:
    """A forward pass of padding alone."""
    has_prompt = pairs.model.sequence.has_prompt
    batch = collate([], EMPTY, width=pairs.token_size, has_prompt=has_prompt).to(network.device).batch
    network(batch, batch.vision, torch.ones(batch.segments, device=network.device))


def export(module: EditModule, config: FitConfig, folder: Path, adapter: Path | None = None) -> None:
    """Save the averaged weights as a checkpoint of `Editor`; all ranks call it together.

    An adapter is merged into the weights that training started from, as they are there.

    Args:
        adapter: where to save the adapter, if one is trained.
    """
    weights = module.averaged_weights()
    if not module.world.is_main_process:
        return
    network: Transformer | None
    if config.lora is None:
        with torch.device("meta"):
            network = build_transformer(module.config.network, module.config.extras)
        network.load_state_dict(weights, assign=True)
    else:
        network = load_init_weights(config)
        assert network is not None  # `init_model` has asked for one
        add_adapter(network, replace(config.lora, base="float32"))
        network.load_state_dict(weights, strict=False)
        if adapter is not None:
            save_adapter(network, adapter, config.train.init_from)
        merge(network)
    save_checkpoint(network, module.config, folder)
