"""Runs a suite: edits what is not yet edited, scores what is not yet scored, aggregates.

Everything computed is kept at once, so an interrupted run continues and a second run computes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.core.item import BenchmarkError, RunStopped, Unscored
from benchmark.core.progress import bars
from benchmark.core.score_cache import ScoreStore
from benchmark.core.stored_frames import decoder
from benchmark.evaluation.editing import make_edits, with_edits
from benchmark.evaluation.item_evaluator import ItemResult
from benchmark.evaluation.results import Outcome, Run, RunConfig
from benchmark.evaluation.setup import Evaluation, evenly_spaced
from benchmark.evaluation.worker_pool import in_processes
from benchmark.judges.answer_log import FOLDER, AnswerLog
from shards.devices import choose_device
from shards.errors import EditVerseError, first_line
from shards.files import LOCK, exclusive, is_unused, write_json
from shards.limits import read_json


def claim(out: Path, config: RunConfig) -> None:
    """Make `out` this run's folder; raises BenchmarkError when it holds another configuration's run."""
    path = out / "config.json"
    wanted = json.loads(json.dumps(asdict(config)))
    if path.is_file():
        try:
            held = read_json(path)
        except EditVerseError:
            raise BenchmarkError(f"{path}: damaged; choose another --out or delete {out}") from None
        if isinstance(held, dict):  # what came later is not in a run of before, and was as by default
            held = json.loads(json.dumps(asdict(RunConfig("", "", None)))) | held
        different = [k for k in wanted if not isinstance(held, dict) or held.get(k) != wanted[k]]
        if different and {p.name for p in out.iterdir()} - {LOCK} != {
            path.name
        }:  # a run that began to store things
            name = different[0]
            was = held.get(name) if isinstance(held, dict) else None
            raise BenchmarkError(
                f"--out {out}: holds another run ({name}: {was!r} there, {wanted[name]!r} asked for); "
                "choose another --out or delete it"
            )
        if different:
            write_json(path, wanted)
        return
    check_folder(out)
    write_json(path, wanted)


def device_of(out: Path, device: str) -> str:
    """The device of a run's networks; `auto` is that of the run in `out`, so a finished one needs no torch.

    Raises:
        SettingError: this machine has no such device.
    """
    path = out / "config.json"
    if device == "auto" and path.is_file():
        try:
            config = read_json(path)
        except EditVerseError:  # `claim` says what is to be done
            config = None
        if isinstance(config, dict) and isinstance(config.get("device"), str):
            return str(config["device"])
    return choose_device(device)


def check_folder(out: Path) -> None:
    """Raise BenchmarkError unless a run can have its folder here."""
    if out.exists() and not out.is_dir():
        raise BenchmarkError(f"--out {out}: is not a folder")
    if not is_unused(out) and not (out / "config.json").is_file():
        raise BenchmarkError(f"--out {out}: not empty and no benchmark run (no config.json); choose another")


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold a run's folder: a second run of it, or one that writes its page, is refused (InUseError)."""
    check_folder(out)  # no lock is left in what is no run's folder
    with exclusive(out, "--out"):
        yield


def execute(
    config: RunConfig,
    out: Path,
    console: Console,
    gallery: int,
    workers: int = 1,
    bench: Evaluation | None = None,
    retry: int = 0,
) -> Run:
    """Edit and score every item of the suite; results lie under `out`.

    Faults of one item or of one result leave the others alone: its scores are `Unscored` with the reason.
    What ends the run before its last item is `Run.stopped`, and the run is of the items before; where an
    editor does so, of those that have an edit.

    Args:
        gallery: items with videos on the page at most.
        workers: processes; with more than one each loads the networks for itself.
        bench: the run's parts, if they are made already.
        retry: how often a score or an edit that failed is computed again, over all runs of this folder.

    Raises:
        BenchmarkError: a request that is wrong as a whole.
        RunStopped: before anything was edited or scored.
        KeyboardInterrupt: before anything was scored.
    """
    bench = bench or Evaluation(config, out)
    claim(out, config)
    store = ScoreStore(out / "scores.jsonl")
    edits = make_edits(bench, console, workers, retry)
    stopped: BaseException | None = edits.stopped
    numbers = with_edits(bench) if edits.stopped else list(range(len(bench.items)))
    if edits.stopped and not numbers:
        raise edits.stopped  # there is nothing to tell
    shown = {numbers[n] for n in evenly_spaced(len(numbers), gallery)}
    jobs = [(number, number in shown) for number in numbers]
    counts = Counter(edits_made=edits.made, edits_reused=edits.reused)
    outcomes: dict[int, Any] = {}
    stops = [f"stopped before all edits were made: {first_line(edits.stopped)}"] if edits.stopped else []
    with bars(console) as progress:
        bar = progress.add_task("score", total=len(jobs))
        try:
            with closing(_done(bench, store, jobs, workers, retry)) as coming:
                for number, done in coming:
                    store.put(done.fresh)
                    note_errors(out / "errors.log", done.tracebacks)
                    done.outcome.item = bench.items[number]
                    outcomes[number] = done.outcome
                    counts.update(scores_computed=len(done.fresh), scores_reused=done.reused)
                    counts.update(videos_encoded=done.encoded)
                    progress.update(bar, description=bench.items[number].id)
                    progress.advance(bar)
                    if done.stopped:
                        raise RunStopped(done.stopped)
        except (RunStopped, KeyboardInterrupt) as error:
            rows = [of for o in outcomes.values() for of in o.scores.values()]
            if all(isinstance(score, Unscored) for of in rows for score in of.values()):
                raise  # there is nothing to tell
            stopped = error
            why = first_line(error) if isinstance(error, RunStopped) else "interrupted"
            stops.append(f"stopped after {len(outcomes)} of {len(jobs)} items: {why}")
    remarks = stops + [line for finished in bench.finished for line in finished.extra(bench.suite.items)]
    return Run(
        config,
        bench.suite,
        bench.metrics,
        [outcomes[number] for number in sorted(outcomes)],
        bench.rows,
        bench.checkpoint.sha256 if bench.checkpoint else None,
        {name: counts[name] for name in COUNTED},
        [*remarks, *sources_used(bench, list(outcomes.values()))],
        stopped,
        unlike_published(bench) if config.mode == "official" else [],
    )


def note_errors(path: Path, tracebacks: list[str]) -> None:
    """Append what metrics raised to a file, for whoever mends them."""
    if tracebacks:
        with path.open("a", encoding="utf-8") as handle:
            handle.write("\n".join(tracebacks) + "\n")


def sources_used(bench: Evaluation, outcomes: list[Outcome]) -> list[str]:
    """Which sources results were compared with, where some have theirs beside them."""
    found = []
    for system in bench.finished:
        row = system.rows[0]
        named = [o for o in outcomes if o.item.beside and row in o.geometries]
        own = sum(row in o.sources for o in named)
        if own:
            name = Path(named[0].item.beside).name
            told = f"{row}: the source of {own} results is the {name} beside them"
            found.append(told + (f", of {len(named) - own} that of --data" if own < len(named) else ""))
        elif named and bench.config.mode == "official":
            name = Path(named[0].item.beside).name
            found.append(f"{row}: no {name} beside the results, as published: their source is that of --data")
    return found


def unlike_published(bench: Evaluation) -> list[str]:
    """In what the official mode is not the published program, by suite and by metric."""
    parts = [(bench.suite.name, bench.suite), *((metric.label, metric) for metric in bench.metrics)]
    lines = [f"{name}: {line}" for name, part in parts for line in getattr(part, "unlike_published", ())]
    return [f"videos: read by {decoder()}", *dict.fromkeys(lines)]


COUNTED = ("edits_made", "edits_reused", "scores_computed", "scores_reused", "videos_encoded")


def _done(
    bench: Evaluation, store: ScoreStore, jobs: list[tuple[int, bool]], workers: int, retry: int
) -> Generator[tuple[int, ItemResult]]:
    if workers > 1:
        AnswerLog(bench.out / FOLDER)  # what was cut off is dropped before several read it
        yield from in_processes(bench.config, bench.out, jobs, workers, retry)
        return
    worker = bench.worker(store, retry, AnswerLog(bench.out / FOLDER))
    for number, page in jobs:
        yield number, worker.item(bench.items[number], page)
