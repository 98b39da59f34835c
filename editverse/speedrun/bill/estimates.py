"""What stages cost that nobody has timed on such a machine: by operations, and by what others publish.

Trainings, latents and edits are operations over operations a second (`model.planner`,
`model.encoders.flops`); curation's models are what their authors say (`curation.engine.estimate`).
Imports torch: not for the runner.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from curation.engine.estimate import parts_on_gpu
from curation.engine.run_all import read_runs
from curation.engine.task_config import build, default_config, load_config
from editverse.speedrun.bill.amounts import AMOUNTS, TRAININGS, SizePlan
from editverse.speedrun.bill.costs import BillError, StageCost
from model.config import MediaConfig, fitted_size
from model.data.mixture import MixtureSampler
from model.encoders.flops import WAN_AUTOENCODERS, decoder_flops, encoder_flops, umt5_flops
from model.inference.bases import Base, bases
from model.planner.allocations import parameter_counts
from model.planner.balance import Budget, Cluster
from model.planner.base_plan import BaseSizes, lora_cost, sizes_of
from model.planner.cost import CostModel, by_formula
from model.planner.flops import edit_flops, forward_flops
from model.planner.step_plan import Planner
from model.planner.work import Shape
from model.training.config import FitConfig
from shards.serialization import from_dict

WORDS = 40  # of an instruction, in tokens
ASPECT = (720, 1280)  # height, width of a source, which is resized into the area of a training
NODE = 8
GIB, TERA = 2**30, 1e12
# Core-seconds of a candidate of the offline preset, docs/receipts.md ("What an accepted pair costs"):
# all of a task's work over its candidates, of clips of 768x576 and of rendered scenes.
OFFLINE_CORE_SECONDS = {
    "camera_change": 1.9,
    "cg_camera": 6.9,
    "cg_depth": 4.0,
    "cg_removal": 3.2,
    "cg_replacement": 3.7,
    "customization": 0.6,
    "depth_to_video": 0.1,
    "image_to_video": 0.1,
    "inpainting": 0.5,
    "mask_detection": 0.2,
    "object_addition": 1.2,
    "object_removal": 1.2,
    "object_replacement": 1.2,
    "pose_to_video": 8.9,
    "propagation": 0.1,
    "sketch_to_video": 1.9,
    "style_transfer": 5.1,
    "text_to_video": 0.1,
    "video_to_depth": 0.1,
    "video_to_pose": 0.1,
    "video_to_sketch": 0.1,
}


@dataclass(frozen=True)
class Estimator:
    """Costs of the stages of a size whose base is one of `model.inference.bases`, on `plan.gpus` GPUs."""

    plan: SizePlan
    base: Base

    @functools.cached_property
    def fits(self) -> dict[str, FitConfig]:
        """The trainings, checked."""
        return {
            name: from_dict(FitConfig, value, str(self.plan.folder / f"{name}.yaml"))
            for name, value in ((n, _known(self.plan.trainings[n])) for n in TRAININGS)
        }

    @functools.cached_property
    def gpus(self) -> int:
        """At least one: an estimate in GPU-hours needs one."""
        return max(1, self.plan.gpus)

    def media(self, name: str) -> tuple[BaseSizes, tuple[int, int, int]]:
        """Sizes of the base, and frames, height and width of a training's clips."""
        media = self.fits[name].train.media or self.fits["stage1"].train.media or MediaConfig()
        height, width = fitted_size(*ASPECT, media, 2 * self.base.spatial)
        size = (media.frames, height, width)
        return sizes_of(self.base.name, size), size

    def cost(self, stage: str) -> StageCost:
        """One stage."""
        if stage in TRAININGS:
            return self.training(stage)
        others = {
            "base": self.weights,
            "clips": self.clips,
            "curation": self.curation,
            "imports": self.imports,
            "gates": self.gates,
            "latents": self.latents,
            "bench": self.bench,
            "report": self.report,
        }
        return others[stage]()

    def weights(self) -> StageCost:
        """Fetch the weights."""
        rates = self.plan.amounts.rates
        gib = self.base.edit_gib
        seconds = gib * 1024 / rates.download_mib
        told = f"{gib:.1f} GiB of weights at {rates.download_mib:g} MiB a second"
        return self._row("base", 0.0, 0.0, gib, told, seconds=seconds)

    def clips(self) -> StageCost:
        """Fetch the clips."""
        a = self.plan.amounts
        mib = a.clips * a.clip_mib
        told = f"{a.clips:,} clips of {a.clip_mib:g} MiB at {a.rates.download_mib:g} MiB a second"
        return self._row("clips", 0.0, 0.0, mib / 1024, told, seconds=mib / a.rates.download_mib)

    def curation(self) -> StageCost:
        """All runs of curation.yaml: models on GPUs by what is published of them, all else on cores."""
        a = self.plan.amounts
        gpu = cpu = 0.0
        told = []
        runs = read_runs(self.plan.folder / "curation.yaml")
        for run in runs:
            count = a.candidates.get(run.name)
            if count is None:
                raise BillError(
                    f"{self.plan.folder / AMOUNTS}: candidates: say how many {run.name} makes, which "
                    "curation.yaml lists"
                )
            path = run.config or default_config(run.task)
            parts = parts_on_gpu(build(load_config(run.task, path)))
            if run.task == "object_addition" and any(r.task == "object_removal" for r in runs):
                told.append(f"{run.name}: the other way round of what removal makes, for nothing")
                continue
            seconds = sum(part.seconds or 0.0 for part in parts)
            judged = a.rates.judge_seconds * bool(parts)
            core = OFFLINE_CORE_SECONDS.get(run.task, 0.0) if not parts else a.rates.cut_core_seconds
            gpu, cpu = gpu + count * (seconds + judged), cpu + count * core
            if not parts:
                told.append(
                    f"{run.name}: {count:,} candidates of {core:g} core-seconds (docs/receipts.md, offline)"
                )
                continue
            named = ", ".join(
                f"{part.name} {part.seconds:.1f} s ({part.source})"
                for part in parts
                if part.seconds is not None
            )
            unknown = ", ".join(dict.fromkeys(part.name for part in parts if part.seconds is None))
            told.append(
                f"{run.name}: {count:,} candidates of {seconds + judged:.0f} GPU-seconds: "
                f"{named or 'nothing published'}; language models {judged:g} s (assumed)"
                + (f"; not counted beside: {unknown}" if unknown else "")
            )
        told.append(f"{a.accepted:.1%} of the candidates are accepted: {a.curated:,.0f} pairs")
        if a.models_gib:
            told.append(f"{a.models_gib:g} GiB of weights are fetched for curation and gates (assumed)")
        disk = sum(a.candidates.values()) * a.rates.candidate_mib + a.curated * a.rates.pair_mib
        return self._row("curation", gpu, cpu, a.models_gib + disk / 1024, *told)

    def imports(self) -> StageCost:
        """Fetch and convert data sets of others."""
        a = self.plan.amounts
        rates = a.rates
        told = (
            f"{a.imported:,} pairs, {a.imported_pictures:,} of them pictures: {a.import_gib:,.0f} GiB "
            f"fetched at {rates.download_mib:g} MiB a second, {rates.import_core_seconds:g} core-seconds and "
            f"{rates.pair_mib:g} MiB a pair of videos, {rates.picture:.0%} of that for one of pictures"
        )
        pairs = a.imported - (1 - a.rates.picture) * a.imported_pictures
        disk = a.import_gib + pairs * a.rates.pair_mib / 1024
        fetched = a.import_gib * 1024 / a.rates.download_mib
        return self._row("imports", 0.0, pairs * a.rates.import_core_seconds, disk, told, seconds=fetched)

    def gates(self) -> StageCost:
        """Measure every sample, have each judged once, and keep the clean ones."""
        a = self.plan.amounts
        graded = self.plan.units["gates"]["samples"]
        told = (
            f"{graded:,.0f} samples of {a.rates.grade_core_seconds:g} core-seconds; a language model judges "
            f"{a.judged:.0%} of them, {a.rates.judge_seconds:g} GPU-seconds each ({a.pictured:.0%} are "
            f"pictures: {a.rates.judge_picture_seconds:g}); {a.clean:.1%} pass: {a.clean * graded:,.0f}"
        )
        less = a.mean(1.0, a.rates.picture)
        disk = a.clean * graded * a.rates.pair_mib * less / 1024
        gpu = graded * a.judged * a.mean(a.rates.judge_seconds, a.rates.judge_picture_seconds)
        cpu = graded * a.rates.grade_core_seconds * less
        return self._row("gates", gpu, cpu, disk, told)

    def latents(self) -> StageCost:
        """Both videos of a sample through the autoencoder, and its text through UMT5."""
        a = self.plan.amounts
        samples = self.plan.units["latents"]["samples"]
        (frames, height, width), channels = self.media("stage1")[1], self.base.config.vision_dim // 4
        sizes = WAN_AUTOENCODERS[channels]
        clip, picture = (encoder_flops(sizes, f, height, width) for f in (frames, 1))
        coded = 2 * a.mean(clip, picture)
        text = umt5_flops(WORDS)
        seconds = samples * (coded / a.rates.encoder_tflops + text / a.rates.tflops) / TERA
        positions = height * width // self.base.spatial**2
        long = a.mean((frames - 1) // 4 + 1, 1)
        mib = (2 * 2 * positions * long * channels + 2 * WORDS * 4096) / 2**20
        told = (
            f"{samples:,.0f} samples, {a.pictured:.0%} of them pictures: two media of {frames} frames of "
            f"{height}x{width}, {clip / TERA:,.0f} TFLOP each at {a.rates.encoder_tflops:g} TFLOP/s; "
            f"{mib:.1f} MiB of bfloat16 a sample"
        )
        return self._row("latents", seconds, 0.0, samples * mib / 1024, told)

    def training(self, name: str) -> StageCost:
        """A training: its steps, planned as the trainer plans them, and the renders that it looks at."""
        fit, rates = self.fits[name], self.plan.amounts.rates
        sizes, (frames, height, width) = self.media(name)
        gpus, config = self.gpus, self.base.config
        node = min(NODE, gpus)
        degree = min(fit.parallel.sequence_parallel, node)
        batch, steps = fit.data.batch_size, fit.train.steps
        pictures = float(self.plan.amounts.pictures.get(name, 0.0))
        few = round(batch * pictures)
        latent_frames = (frames - 1) // 4 + 1
        short = 2 * sizes.clip // latent_frames
        lengths = np.array([short] * few + [2 * sizes.clip] * (batch - few), np.int64)
        cost = self._cost(fit)
        order = MixtureSampler([[batch]], [1.0], 0)
        cluster = Cluster(gpus, node, degree, config.heads)
        planner = Planner(lengths, order, batch, cost, cluster, Budget(fit.data.token_budget))
        each = float(planner(0).balanced.load.max()) / (rates.tflops * TERA)
        looks, evaluations = -(-steps // fit.train.validate_every), self._evaluations(fit)
        one = forward_flops(config, [_edit(sizes.clip)])
        rendered = looks * fit.train.num_val_samples * evaluations * one / (rates.tflops * TERA)
        seconds = gpus * (steps * each + rendered + 3600 * rates.start_hours)
        weights, trained = parameter_counts(config, fit.lora)
        kept = 1 + fit.train.max_checkpoints
        disk = (
            16 * trained * kept + 4 * (weights + trained)
        ) / GIB  # weights, average and moments in float32
        told = [
            f"{steps:,} steps of {batch}, {pictures:.0%} of them pictures: pairs of {frames} frames of "
            f"{height}x{width}, {2 * sizes.clip:,} tokens, at {rates.tflops:g} TFLOP/s (an H100 does 989 at "
            f"most): {each:.1f} s a step",
            f"{looks} times {fit.train.num_val_samples} renders of {evaluations} passes on one GPU while the "
            f"others wait; {60 * rates.start_hours:g} minutes to load and compile; sending, loading and "
            "saving hide behind the steps",
            f"{kept} states of {16 * trained / GIB:.1f} GiB"
            + (f"; an adapter of rank {fit.lora.rank} is trained" if fit.lora else ""),
        ]
        if fit.distill is not None:
            told.append(
                f"the teacher takes {fit.distill.teacher_steps // fit.distill.steps} guided steps a visit"
            )
        return self._row(name, seconds, 0.0, disk, *told)

    def _cost(self, fit: FitConfig) -> CostModel:
        """Operations of a visit, with what checkpointing repeats and what a teacher does."""
        again = fit.parallel.checkpointing == "full"
        backward = 3.0 if again else 2.0
        if fit.lora is None:
            cost = by_formula(self.base.config, backward)
        else:
            cost = lora_cost(self.base.config, parameter_counts(self.base.config, fit.lora)[1], again)
        if fit.distill is None:
            return cost
        guided = 1 if fit.distill.guidance == 1 else 2
        passes = guided * (fit.distill.teacher_steps // fit.distill.steps)
        one = by_formula(self.base.config, 0.0)
        return CostModel(cost.linear + passes * one.linear, cost.quadratic + passes * one.quadratic)

    def _evaluations(self, fit: FitConfig) -> int:
        a = self.plan.amounts
        return fit.distill.steps if fit.distill else a.edit_steps * (1 + a.edit_guided)

    def bench(self) -> StageCost:
        """Edits by each system, and their scores."""
        a = self.plan.amounts
        sizes, (frames, height, width) = self.media("stage1")
        shape = _edit(sizes.clip)
        slow = edit_flops(self.base.config, [shape], a.edit_steps, a.edit_guided)
        distill = self.fits["distill"].distill
        few = distill.steps if distill else a.edit_steps
        fast = edit_flops(self.base.config, [shape], few, False)
        vae = WAN_AUTOENCODERS[self.base.config.vision_dim // 4]
        coded = encoder_flops(vae, frames, height, width) + decoder_flops(vae, frames, height, width)
        others = max(0, a.systems - 1)
        each = coded / a.rates.encoder_tflops / TERA + a.rates.metric_seconds
        sampled = (others * slow + min(1, a.systems) * fast) / a.rates.tflops / TERA
        gpu = a.items * (sampled + a.systems * each)
        edits = a.items * a.systems
        told = (
            f"{a.items:,} items of one window by {a.systems} systems: {a.edit_steps} "
            f"{'guided ' * a.edit_guided}steps ({slow / TERA / a.rates.tflops:,.0f} s), the distilled one "
            f"{few}; {each:.0f} s an edit for autoencoder and metrics; a judge behind an API costs money, "
            "which is not counted"
        )
        disk = edits * a.rates.edit_mib / 1024
        return self._row("bench", gpu, edits * a.rates.bench_core_seconds, disk, told)

    def report(self) -> StageCost:
        """Read every sample's receipt, export the weights, draw the page."""
        a = self.plan.amounts
        gib = 4 * parameter_counts(self.base.config)[0] / GIB
        told = (
            f"a millisecond of one core for each of {a.samples:,.0f} samples, 10 minutes beside; weights of "
            f"{gib:.1f} GiB"
        )
        seconds = 0.001 * a.samples + 600  # docs/receipts.md: 67 core-seconds for 100,000
        return self._row("report", 0.0, seconds, gib, told, seconds=seconds)

    def _row(
        self, stage: str, gpu: float, cpu: float, gib: float, *assumptions: str, seconds: float = 0.0
    ) -> StageCost:
        """A row of GPU-, core- and clock seconds; work is shared evenly, `seconds` of the clock are not."""
        cores = self.plan.amounts.rates.cores * self.gpus
        wall = max(seconds, gpu / self.gpus, cpu / cores)
        return StageCost(
            stage,
            gpu / 3600,
            max(cpu, gpu) / 3600 if gpu else cpu / 3600,  # a core for every GPU at work
            gib,
            wall / 3600,
            "estimated",
            dict(self.plan.units[stage]),
            assumptions,
        )


def estimator(plan: SizePlan) -> Estimator | None:
    """What estimates a plan; None for a base that is none of `model.inference.bases`."""
    known = {key: b for b in bases() for key in (b.name, b.repository)}
    return Estimator(plan, known[plan.base]) if plan.base in known else None


def _edit(clip: int) -> Shape:
    """A source and a target of `clip` tokens each, and an instruction apart."""
    return Shape(text=WORDS, vision=2 * clip, noisy=clip, target=clip, total=2 * clip, segments=2)


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """A training's settings without those of the command itself."""
    return {name: value for name, value in settings.items() if name not in ("run", "resume", "help")}
