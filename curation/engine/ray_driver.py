"""Ray's side of a run: a process that is connected to Ray, and the actors of the stages.

Rows of Ray Data carry an outcome as JSON: references and small values, never pixels.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

from curation.core.cache import Workspace
from curation.core.outcome import Outcome
from curation.core.stage import Resources
from curation.engine.cluster import join, prepare_environment
from curation.engine.local import THREADS, end_with_parent
from curation.engine.task_config import RunError, StageLimits, one_line
from curation.engine.worker import ATTEMPTS, CUT, Job, Worker, given_up
from shards.errors import EditVerseError
from shards.processes import background_processes, close_terminal_input

STARTS = 3  # of Ray, which gives up after 30 seconds; a busy machine may need longer
SPARE = 0.95  # of the cores, which all pools together may ask for at their smallest
NO_GPU = "no GPU here: stages that want one work on processor cores"
ROW_BYTES = 1500  # of a clip's row, about
LOOK = 2.0  # seconds between two looks at the nodes
FILE_BLOCKS = 4  # of sources for each process of the cut, at least


@dataclass(frozen=True)
class StagePool:
    """A stage, what each process of it takes, and how many there may be."""

    stage: str
    needs: Resources
    limit: StageLimits


def serve(pipe: Any, address: str, workers: int) -> None:
    """What the process does: run after run, until the other end of the pipe is closed."""
    close_terminal_input()
    end_with_parent()
    if "RAY_BACKEND_LOG_LEVEL" not in os.environ:
        silence()  # a Ray that is lost says so at length, from threads of its own
    requests: SimpleQueue[Any] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                requests.put(pipe.recv())
        except (EOFError, OSError):
            _leave()  # whatever is under way

    lock = threading.Lock()

    def tell(kind: str, text: str) -> None:
        with lock:
            pipe.send((kind, text))

    threading.Thread(target=listen, name="requests", daemon=True).start()
    connected = False
    while True:
        _, job, pools, sources, gpus = requests.get()
        try:
            if not connected:
                _connect(address, workers)
                connected = True
                threading.Thread(target=watch_nodes, args=(tell,), name="nodes", daemon=True).start()
            for kind, text in stream(job, pools, sources, workers, gpus, bool(address)):
                tell(kind, text)
            tell("done", "")
        except RunError as error:
            tell("error", str(error))
        except Exception as error:  # Ray's are of many classes; the run ends with the line  # noqa: BLE001
            tell("error", one_line(error))


def watch_nodes(tell: Callable[[str, str], None]) -> None:
    """Tell of every node of the cluster that is lost."""
    import ray

    known: dict[str, str] = {}
    while True:
        try:
            living = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        except Exception:  # Ray's are of many classes: it is shut down, or its head is gone  # noqa: BLE001
            return
        for node in known.keys() - living.keys():
            tell("lost", known[node])
        known = living
        time.sleep(LOOK)


def _leave() -> None:
    import ray

    try:
        ray.shutdown()
    finally:
        os._exit(0)


def silence() -> None:
    """Let this process print nothing more on stderr: what is to be told goes through the pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _connect(address: str, workers: int) -> None:
    """Join the cluster at an address, or start a Ray on this machine; RunError when it does not come up."""
    prepare_environment()
    import ray
    import ray.data

    # Ray 2.60 has no named parameter yet for what it asks to name (max_restarts).
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
    common: dict[str, Any] = {"configure_logging": True, "runtime_env": {"env_vars": dict(THREADS)}}
    if address:
        join(address, **common)
        return
    for _ in range(STARTS):
        try:
            with background_processes():  # workers inherit their standard input from what is started here
                ray.init(
                    address="local",
                    num_cpus=workers,
                    include_dashboard=False,
                    object_store_memory=128 << 20,  # rows are small
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **common,
                )
            return
        except Exception as error:  # Ray has no class of its own for this
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    raise RunError(
        f"did not start within 30 s, {STARTS} times; wait until the machine is less busy, or work without "
        "Ray: --engine local"
    )


def fitted(
    pools: Sequence[StagePool], nodes: Sequence[Mapping[str, float]], workers: int, cluster: bool, gpus: float
) -> tuple[list[StagePool], str]:
    """The pools with shares that Ray can give them all at once, and a line to be told ("" for none).

    All pools live at the same time, so that each must get its smallest number of processes. On one machine
    each may grow to `workers`; cores are then only counted, and shared by the kernel.

    Args:
        nodes: what each living node has, as Ray names it.

    Raises:
        RunError: GPUs that are not there, or no core at all; Ray would wait for them for ever.
    """
    note, fit = "", list(pools)
    gpus_there = sum(node.get("GPU", 0.0) for node in nodes)
    if not any(node.get("CPU", 0.0) for node in nodes):
        raise RunError("its nodes have no core to give; start them with --num-cpus")
    if gpus > gpus_there:
        where = "this cluster" if cluster else "this machine"
        raise RunError(f"--gpus {gpus:g}: no worker would ever start, {where} has {gpus_there:g} GPUs")
    if not gpus_there and any(pool.needs.gpus for pool in fit):
        note = NO_GPU
        fit = [replace(pool, needs=replace(pool.needs, gpus=0.0)) for pool in fit]
    wanted = sum(pool.needs.gpus * (pool.limit.min or 1) for pool in fit)
    if wanted > gpus_there + 1e-6:
        raise RunError(
            f"the stages want {wanted:g} GPUs at once, there are {gpus_there:g}; use --engine passes for one "
            "stage at a time, or give smaller shares in `resources` of the task's file"
        )
    if not cluster:
        fit = [replace(pool, limit=grown(pool.limit, workers)) for pool in fit]
        fit = [replace(pool, limit=within_gpus(pool, gpus_there - wanted)) for pool in fit]
    counted = [(pool.limit.min or 1) if cluster else (pool.limit.max or 1) for pool in fit]
    wanted_cpus = [pool.needs.cpus for pool, number in zip(fit, counted, strict=True) for _ in range(number)]
    cores = sorted(node.get("CPU", 0.0) for node in nodes)
    # Also when a node is lost: a stage whose last process was there must find room on the others.
    share = share_that_fits(wanted_cpus, cores[:-1] if any(cores[:-1]) else cores)
    if share < 1.0:
        cut = math.floor(share * 10_000) / 10_000  # Ray counts to four places
        fit = [replace(p, needs=replace(p.needs, cpus=round(p.needs.cpus * cut, 4))) for p in fit]
    return fit, note


def share_that_fits(wanted: Sequence[float], nodes: Sequence[float]) -> float:
    """The largest share, at most 1, of what processes want of cores at which all find a node at once.

    Args:
        wanted: cores of each process; nodes: cores of each node. A process lies on one node.
    """
    share, ordered = 1.0, sorted(wanted, reverse=True)
    while True:
        free = [SPARE * cores for cores in sorted(nodes, reverse=True)]
        for cores in ordered:  # first fit, the largest first
            place = next((i for i, left in enumerate(free) if left >= cores * share), None)
            if place is None:
                break
            free[place] -= cores * share
        else:
            return share
        share *= 0.98


def grown(limit: StageLimits, workers: int) -> StageLimits:
    """The limits of a stage on one machine: as many processes as there are workers, unless said otherwise."""
    least = limit.min or 1
    return StageLimits(min=least, max=limit.max or max(workers, least))


def within_gpus(pool: StagePool, spare: float) -> StageLimits:
    """The limits of a pool that finds no more GPUs than what its least takes and `spare`."""
    if not pool.needs.gpus:
        return pool.limit
    least = pool.limit.min or 1
    most = least + math.floor(max(0.0, spare) / pool.needs.gpus + 1e-6)
    return replace(pool.limit, max=min(pool.limit.max or most, most))


def stream(
    job: Job,
    pools: Sequence[StagePool],
    sources: Mapping[int, str],
    workers: int,
    gpus: float,
    cluster: bool,
) -> Any:
    """Messages (kind, text) of a run over sources by their numbers: notes, and rows of finished outcomes."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0  # a lost block is an error, never a shorter result
    # Of actors that die while they start: a node is lost, or Ray Data itself takes back one that it no longer
    # needs. What fails in their own start is a fault that they report.
    context.max_consecutive_actor_init_deaths = 2 * ATTEMPTS
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    pools, note = fitted(pools, nodes, workers, cluster, gpus)
    if note:
        yield "note", note
    root = job.root
    items = [Outcome(source, number=(number, 0)).to_row(root) for number, source in sources.items()]
    if not items:
        return
    # Few clips are handed out one by one, so that all processes have work; many in batches.
    most = pools[0].limit.max or int(ray.cluster_resources().get("CPU", 1))
    size = max(1, min(*(pool.needs.batch for pool in pools), len(items) // (FILE_BLOCKS * most)))
    # A file may give many clips: what the cut puts out is split by its bytes. Not by `repartition`, whose
    # tasks want a core of their own, which the pools may have taken.
    context.target_max_block_size = size * ROW_BYTES
    rows: Any = ray.data.from_items(items, override_num_blocks=-(-len(items) // size))
    for pool in pools:
        actor = type(pool.stage, (StageActor,), {"stage": pool.stage})
        options: dict[str, Any] = {
            "fn_constructor_args": (job,),
            "compute": ActorPoolStrategy(min_size=pool.limit.min or 1, max_size=pool.limit.max),
            "num_cpus": pool.needs.cpus,
            "num_gpus": pool.needs.gpus or None,
            "memory": pool.needs.memory_gib * (1 << 30) or None,
            # An actor that dies is replaced and its rows are tried again, however often: the actors count
            # deaths themselves, and leave a clip out after `ATTEMPTS`.
            "max_restarts": -1,
            "max_task_retries": -1,
        }
        if pool.stage == CUT:
            rows = rows.flat_map(actor, **options)
        else:
            rows = rows.map(actor, **options)
    for row in rows.iter_rows():
        yield "row", row["outcome"]


class StageActor:
    """An actor of a stage: a worker that is built once and takes row after row through the stage."""

    stage = ""

    def __init__(self, job: Job) -> None:
        import ray

        close_terminal_input()  # a Ray that was started elsewhere may have given it one
        self.job, self.fault, self.first = job, "", True
        # An actor keeps its number when Ray starts it again. Two clips may kill it, and no more, before
        # it has any result.
        self.name = f"stage-{self.stage}-{ray.get_runtime_context().get_actor_id()}"
        self.space = Workspace(job.workspace)
        try:
            os.chdir(job.folder)  # to which the workspace may be relative; on another node Ray is elsewhere
            if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
                os.environ["CUDA_VISIBLE_DEVICES"] = ""  # or all that ask for none would be on the first one
            # Work is tried again only when its process was lost, so that the marks of others are deaths.
            deaths = self.space.begin_attempt(job.run, self.name)
            if deaths > 2 * ATTEMPTS:
                self.fault = f"stage {self.stage}: its processes died {deaths} times before any result"
                return
            self.worker = Worker(job)
        except (EditVerseError, OSError) as error:
            self.fault = f"stage {self.stage}: {error}"

    def __call__(self, row: Mapping[str, str]) -> Any:
        root = self.space.local
        rows = [outcome.to_row(root) for outcome in self._step(Outcome.from_row(row, root))]
        return rows if self.stage == CUT else rows[0]

    def _step(self, outcome: Outcome) -> list[Outcome]:
        if self.fault:
            return [replace(outcome, fault=self.fault)]
        if self.stage != CUT and not outcome.goes_on:
            return [outcome]
        key = f"{self.stage}-{outcome.number[0]}-{outcome.number[1]}"
        deaths = self.space.begin_attempt(self.job.run, key)
        if deaths >= ATTEMPTS:
            made = [given_up(outcome, deaths)]
        else:
            made = self.worker.step(self.stage, outcome)
        self.space.end_attempt(self.job.run, key)
        if self.first:
            self.space.end_attempt(self.job.run, self.name)
            self.first = False
        return made
