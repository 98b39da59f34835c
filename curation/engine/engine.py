"""Which engine a run takes, and its start: once for all runs of a command.

All engines run the same stages over the same sources and give the same outcomes; they differ in who works.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from curation.core.cache import Workspace
from curation.core.outcome import Outcome
from curation.core.stage import Resources, Stage
from curation.engine import local, passes, streaming
from curation.engine.memory import gpus_at_once, visible_gpus
from curation.engine.progress import RunProgress
from curation.engine.ray_driver import StagePool
from curation.engine.store import OutcomeStore
from curation.engine.task_config import StageLimits
from curation.engine.worker import CUT, SCREEN, Job

EngineName = Literal["auto", "local", "ray", "passes"]
FEW = 1000  # sources of a run that is small enough for a pool on one machine
SMALL = 10 << 30  # bytes of all its files
MAX_SILENCE = 30.0  # seconds without a result after which the run says what its workers do


@dataclass(frozen=True)
class EngineOptions:
    """How a command wants its runs to be carried out.

    Attributes:
        workers: processes; 0 works in this process.
        gpus: of one process of each stage that wants any; as the stages say when 0.
        engine: "auto" chooses by `choose`.
        address: of a Ray cluster; RAY_ADDRESS of the environment when None.
        max_silence: seconds without a result after which it is said what the workers do.
    """

    workers: int
    gpus: float = 0.0
    engine: EngineName = "auto"
    address: str | None = None
    max_silence: float = MAX_SILENCE

    @property
    def cluster(self) -> str:
        """The address of the Ray to join; "" for one of this machine."""
        return self.address or os.environ.get("RAY_ADDRESS", "")


@dataclass(frozen=True)
class Plan:
    """The stages of a run with what each process of theirs takes: for the engines and for `--dry-run`.

    Attributes:
        limits: stage -> least and largest number of its processes, where the task's file says so.
    """

    stages: Mapping[str, Resources]
    limits: Mapping[str, StageLimits] = field(default_factory=dict)

    @staticmethod
    def of(stages: Sequence[Stage], limits: Mapping[str, StageLimits], gpus: float) -> Plan:
        """The plan of a task's stages; `gpus` replaces what a stage asks for that asks for any."""
        made = {CUT: Resources(), SCREEN: Resources()}
        for stage in stages:
            needs = stage.needs
            made[stage.name] = replace(needs, gpus=gpus if gpus and needs.gpus else needs.gpus)
        for name, limit in limits.items():
            said = {"cpus": limit.cpus, "gpus": limit.gpus, "memory_gib": limit.memory_gib}
            known = {key: value for key, value in said.items() if value is not None}
            batch = limit.batch or made[name].batch
            made[name] = replace(made[name], batch=batch, **known)
        return Plan(made, limits)

    @property
    def wants_gpu(self) -> bool:
        """Whether a stage asks for a GPU."""
        return any(needs.gpus for needs in self.stages.values())

    @property
    def gpus_at_once(self) -> float:
        """GPUs that the smallest pools of all stages take together."""
        return gpus_at_once(self.stages, self.limits)

    def pool_size(self, workers: int, gpus: int) -> int:
        """Processes of a pool without Ray, each of which loads every model: one a GPU where any is wanted."""
        return min(workers, gpus) if self.wants_gpu and gpus else workers


def choose(
    options: EngineOptions, plan: Plan, sources: Sequence[str], gpus: int | None = None
) -> tuple[str, str]:
    """The engine of a run ("here", "pool", "ray" or "passes"), and why in a few words.

    Args:
        gpus: of this machine; counted when None.
    """
    gpus = len(visible_gpus()) if gpus is None else gpus
    if options.engine == "passes":
        return "passes", "one stage after the other, each in a process of its own"
    if options.engine == "ray" or (options.engine == "auto" and options.cluster and options.workers):
        return "ray", f"the cluster at {options.cluster}" if options.cluster else "asked for"
    if not options.workers:
        return "here", "in this process: --workers 0"
    small = len(sources) <= FEW and size_of(sources) <= SMALL
    too_few = 0 < gpus < plan.gpus_at_once - 1e-6
    if options.engine == "auto" and too_few and not options.gpus:
        wanted = f"all stages at once want {plan.gpus_at_once:g} GPUs, this machine has {gpus}"
        return "passes", f"{wanted}: one stage after the other on one GPU"
    if options.engine == "auto" and ((plan.wants_gpu and gpus) or options.gpus):
        return "ray", "stages want a GPU"
    if options.engine == "auto" and not small:
        return "ray", f"more than {FEW} sources or {SMALL >> 30} GiB"
    why = "asked for" if options.engine == "local" else "small enough for this machine; --engine ray for Ray"
    count = plan.pool_size(options.workers, gpus)
    return "pool", f"{count} process{'es' if count > 1 else ''} without Ray, {why}"


def size_of(sources: Sequence[str]) -> int:
    """Bytes of the sources that are files of this machine."""
    paths = (Path(source) for source in sources)
    return sum(path.stat().st_size for path in paths if path.is_file())


class Engine:
    """Carries out runs; a context manager. What it starts (a Ray) serves all runs that it is given."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self._ray: streaming.Ray | None = None
        self._ray_jobs: list[Job] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ray is not None:
            self._ray.close()
            self._ray = None
            # An actor that was still starting when its run ended may have left a mark since.
            for job in self._ray_jobs:
                Workspace(job.workspace).end_run(job.run)

    def outcomes(
        self,
        name: str,
        job: Job,
        plan: Plan,
        sources: Sequence[str],
        store: OutcomeStore,
        progress: RunProgress,
    ) -> Generator[Outcome, None, None]:
        """All outcomes of a run as they are ready, by the engine of this name (see `choose`)."""
        options = self.options
        if name == "here":
            return local.run_here(job, sources, store, progress)
        if name == "pool":
            gpus = visible_gpus() if plan.wants_gpu else []
            size = plan.pool_size(options.workers, len(gpus))
            return local.run_pool(job, sources, store, progress, size, options.max_silence, gpus)
        if name == "passes":
            stages = list(plan.stages)
            return passes.run_passes(job, stages, sources, store, progress, options.max_silence)
        self._ray_jobs.append(job)
        if self._ray is None:
            self._ray = streaming.Ray(options.cluster, options.workers)
        pools = [
            StagePool(stage, needs, plan.limits.get(stage, StageLimits()))
            for stage, needs in plan.stages.items()
        ]
        return self._ray.run(job, pools, sources, progress, options.max_silence, options.gpus)
