"""Scoring in several processes, each with its own networks; who started them keeps the scores."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from benchmark.core.item import RunStopped
from benchmark.core.score_cache import ScoreStore
from benchmark.evaluation.item_evaluator import ItemResult
from benchmark.evaluation.results import RunConfig
from benchmark.evaluation.setup import Evaluation
from benchmark.judges.answer_log import FOLDER, AnswerLog
from shards.processes import background_processes

_here: dict[str, Any] = {}  # a worker process's own parts


def in_processes(
    config: RunConfig, out: Path, jobs: list[tuple[int, bool]], workers: int, retry: int
) -> Iterator[tuple[int, ItemResult]]:
    """(number of the item, what became of it), as they come.

    Args:
        jobs: numbers of items, and whether the page shows them.
        workers: processes, spread over the devices where `config.device` is `cuda`.
        retry: see `Worker`.
    """
    context = multiprocessing.get_context("spawn")
    with background_processes():  # the first lock starts a process that keeps account of locks
        turns = context.Value("i", 0)
    with ProcessPoolExecutor(workers, context, _begin, (config, out, turns, workers, retry)) as pool:
        with background_processes():  # they are started by the first submissions
            waiting = {pool.submit(_item, *job): job[0] for job in jobs}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            raise RunStopped(
                f"--workers {workers}: one of them died ({error}); short of memory? What is scored is kept: "
                "run again, with fewer"
            ) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()  # an item may take minutes, and what is written is written whole
            pool.shutdown(cancel_futures=True)
            raise


def _begin(config: RunConfig, out: Path, turns: Any, workers: int, retry: int) -> None:
    import torch

    _die_with_parent()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    with turns.get_lock():
        turn, turns.value = turns.value, turns.value + 1
    device = config.device
    if device == "cuda" and torch.cuda.device_count():
        device = f"cuda:{turn % torch.cuda.device_count()}"
    bench = Evaluation(config, out, device)
    _here["items"] = bench.items
    answers = AnswerLog(out / FOLDER, f"answers-{turn}", read_only=True)
    _here["worker"] = bench.worker(ScoreStore(out / "scores.jsonl", read_only=True), retry, answers)


def _die_with_parent() -> None:
    """End with the process that started this one, however it ends: nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _item(number: int, page: bool) -> ItemResult:
    done: ItemResult = _here["worker"].item(_here["items"][number], page)
    # an item's loader stays here; the other side has the item itself
    return replace(done, outcome=replace(done.outcome, item=None))  # type: ignore[arg-type]
