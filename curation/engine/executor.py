"""The run: files to clips to candidates, in this process or on Ray Data; `run` writes what is accepted.

Rows of Ray Data carry an outcome as JSON: paths and small values, never pixels.
"""

from __future__ import annotations

import logging
import os
import uuid
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from curation.core.cache import Workspace
from curation.core.outcome import Outcome
from curation.engine import watchdog
from curation.engine.progress import RunProgress
from curation.engine.task_config import RunError, TaskConfig, build, one_line
from curation.engine.worker import ATTEMPTS, Worker, attempts_of
from curation.sources.clip_filter import ClipFilter, DuplicateIndex
from shards.processes import background_processes, close_terminal_input, uninterrupted

STARTS = 3  # of Ray, which gives up after 30 seconds; a busy machine may need longer
MAX_SILENCE = 30.0  # seconds without a result after which the run says what its workers do


def run_local(
    files: list[str], config: TaskConfig, workspace: str | Path, progress: RunProgress
) -> Generator[Outcome, None, None]:
    """All outcomes, one after the other in this process."""
    run = uuid.uuid4().hex[:8]
    worker = Worker(config, str(workspace), os.getcwd(), run)  # noqa: PTH109
    try:
        cut = until_fault(progress.cutting(outcome for file in files for outcome in worker.cut(file)))
        cut = drop_duplicates(cut, worker.task.cut.screen)
        progress.clips(cut)
        for outcome in cut:
            yield worker.process(outcome)
    finally:
        Workspace(workspace).end_run(run)


def until_fault(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """All of them, or the first with a fault of the whole run: more work would only repeat it."""
    made: list[Outcome] = []
    for outcome in outcomes:
        made.append(outcome)
        if outcome.fault:
            return [outcome]
    return made


def drop_duplicates(outcomes: list[Outcome], limits: ClipFilter) -> list[Outcome]:
    """The outcomes in the order of their files; a clip that shows what an earlier one shows is refused."""
    ordered = sorted(outcomes, key=lambda o: o.place)
    seen = DuplicateIndex(limits.alike)
    for outcome in ordered:
        clip, stats = outcome.clip, outcome.clip_stats
        if clip is None or stats is None or outcome.refused:
            continue
        # the same bytes under two names are one clip, which the packing takes once
        if seen.is_duplicate(clip.key, stats.measures.hashes):
            outcome.refused = "near duplicate of another clip"
    return ordered


def run_ray(
    files: list[str],
    config: TaskConfig,
    workspace: str | Path,
    workers: int,
    gpus: float = 0.0,
    max_silence: float = MAX_SILENCE,
    *,
    progress: RunProgress,
) -> Generator[Outcome, None, None]:
    """All outcomes as they are ready, from `workers` processes of a Ray that lives as long as this call.

    Args:
        max_silence: seconds without a result after which it is said on stderr what the workers do.
    """
    ray = _import_ray()
    run = uuid.uuid4().hex[:8]
    arguments = (config, str(workspace), os.getcwd(), run)  # noqa: PTH109
    space = Workspace(workspace)
    folder = attempts_of(space.local, run)
    try:
        _start_ray(workers)
        _need_gpus(gpus)
        _set_context()
        # A near duplicate is of any earlier clip, so all clips are known before any is worked on: the first
        # stage ends, with its workers, before the second begins.
        with watchdog.Watchdog(folder, max_silence) as dog:
            cut = until_fault(progress.cutting(_outcomes(_cut(files, arguments, workers), dog, space.local)))
        cut = drop_duplicates(cut, build(config).cut.screen)
        progress.clips(cut)
        with watchdog.Watchdog(folder, max_silence) as dog:
            yield from _outcomes(_process(cut, space, arguments, workers, gpus), dog, space.local)
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise RunError(f"Ray: {one_line(error)}") from None
    finally:
        # Here too when the caller stops listening (a fault, Ctrl-C): closing the generator raises at the
        # yield above. A second Ctrl-C must not leave Ray's processes behind.
        with uninterrupted():
            ray.shutdown()
            space.end_run(run)


def _import_ray() -> Any:
    """The package, told to be quiet; it reads its environment while it is imported."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own notes; faults come as exceptions
    import ray
    import ray.data

    # Ray 2.60 has no named parameter yet for what it asks to name (max_restarts).
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
    return ray


def _start_ray(workers: int) -> None:
    """Start a Ray on this machine; RunError when it does not come up."""
    import ray

    for _ in range(STARTS):
        try:
            with background_processes():  # workers inherit their standard input from what is started here
                ray.init(
                    num_cpus=workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=True,
                    object_store_memory=128 << 20,  # rows are small
                    runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}},
                )
            return
        except Exception as error:  # Ray has no class of its own for this
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    raise RunError(
        f"Ray: did not start within 30 s, {STARTS} times; wait until the machine is less busy, or work "
        "without Ray: --workers 0"
    )


def _need_gpus(gpus: float) -> None:
    """Raise RunError for a share of a GPU that this machine cannot give: Ray would wait for it for ever."""
    import ray

    there = ray.cluster_resources().get("GPU", 0.0)
    if gpus > there:
        raise RunError(f"--gpus {gpus:g}: no worker would ever start, this machine has {there:g} GPUs")


def _set_context() -> None:
    """Ray Data without its bars and notes, and strict about lost rows."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0  # a lost block is an error, never a shorter result
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _cut(files: list[str], arguments: tuple[Any, ...], workers: int) -> Any:
    """The outcomes of cutting files, as a lazy Ray data set; `arguments` are a `Worker`'s."""
    import ray
    from ray.data import ActorPoolStrategy

    rows: ray.data.Dataset = ray.data.from_items([{"file": f} for f in files], override_num_blocks=len(files))
    return rows.flat_map(
        _CutStage,
        fn_constructor_args=arguments,
        compute=ActorPoolStrategy(size=min(workers, len(files))),
        num_cpus=1,
        # A worker that dies is replaced and its file tried again, however often: the worker itself counts
        # deaths (`Worker._deaths`) and leaves the file out after `ATTEMPTS`.
        max_restarts=-1,
        max_task_retries=-1,
    )


def _process(
    cut: list[Outcome], space: Workspace, arguments: tuple[Any, ...], workers: int, gpus: float
) -> Any:
    """The same outcomes with their candidates, as a lazy Ray data set."""
    import ray
    from ray.data import ActorPoolStrategy

    # One clip a block, so that the clips of one file spread over the workers.
    rows = ray.data.from_items([o.to_row(space.local) for o in cut], override_num_blocks=len(cut))
    return rows.map(
        _ProcessStage,  # type: ignore[arg-type]  # the stub names functions only
        fn_constructor_args=arguments,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=gpus or None,
        max_restarts=-1,
        # Enough for the `ATTEMPTS` deaths that a clip may cause itself, after which the worker leaves it out,
        # and for as many of a worker at which it only waits its turn.
        max_task_retries=2 * ATTEMPTS,
    )


def _outcomes(rows: Any, dog: watchdog.Watchdog, workspace: Path) -> Iterator[Outcome]:
    """Run a Ray data set: its rows as they are ready, in whatever order; each tells the watchdog."""
    for row in rows.iter_rows():
        dog.beat()
        yield Outcome.from_row(row, workspace)


class _CutStage:
    """What an actor of the first stage runs: a worker that is built once and cuts file after file."""

    def __init__(self, *arguments: Any) -> None:
        close_terminal_input()  # a Ray that was started elsewhere may have given it one
        self.worker = Worker(*arguments)

    def __call__(self, row: Mapping[str, str]) -> list[dict[str, str]]:
        return [outcome.to_row(self.worker.root) for outcome in self.worker.cut(row["file"])]


class _ProcessStage:
    """What an actor of the second stage runs."""

    def __init__(self, *arguments: Any) -> None:
        close_terminal_input()
        self.worker = Worker(*arguments)

    def __call__(self, row: Mapping[str, str]) -> dict[str, str]:
        return self.worker.process(Outcome.from_row(row, self.worker.root)).to_row(self.worker.root)
