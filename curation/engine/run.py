"""`python -m curation run`: one task over a folder of clips, to shards, a table and a gallery."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console

from curation.core.cache import Work, Workspace, code_of
from curation.core.outcome import Outcome
from curation.core.results import Candidate
from curation.core.task import Task
from curation.engine import report
from curation.engine.dry_run import note_costs
from curation.engine.engine import Engine, EngineOptions, Plan, choose
from curation.engine.memory import visible_gpus
from curation.engine.output import Output
from curation.engine.progress import RunProgress
from curation.engine.ray_driver import NO_GPU
from curation.engine.report import (
    EXAMPLES,
    Group,
    Pair,
    Rejected,
    Rejections,
    Shown,
    spread,
    write_contact_sheet,
    write_gallery,
)
from curation.engine.store import OutcomeStore
from curation.engine.summary import Summary
from curation.engine.task_config import RunError, build, load_config, read_limits
from curation.engine.worker import Job
from shards.files import write_bytes, write_json
from shards.hashing import digest
from shards.sample import SampleError, Step, parse_sample
from shards.writer import Item

PAIRS, REJECTED = TypeAdapter(Pair), TypeAdapter(Rejected)
PAGE_PAIRS, PAGE_REJECTIONS = TypeAdapter(list[Pair]), TypeAdapter(Rejections)


def run(
    task: str,
    clips: str | Path,
    out: str | Path,
    workspace: str | Path,
    config_path: Path,
    workers: int = 0,
    engine: Engine | None = None,
) -> Summary:
    """Run a task. Raises an EditVerseError, of one line; returns the summary that was written.

    Args:
        workers: processes, where no `engine` is given that serves several runs.
    """
    with contextlib.ExitStack() as stack:
        if engine is None:
            engine = stack.enter_context(Engine(EngineOptions(workers)))
        return _run(task, str(clips), Output(out), workspace, config_path, engine)


def _run(
    task: str, clips: str, output: Output, workspace: str | Path, config_path: Path, engine: Engine
) -> Summary:
    began = time.perf_counter()
    config = load_config(task, config_path)
    built = build(config)
    steps = built.steps()  # names a missing model before any work
    stages = built.graph
    limits = read_limits(config_path, ["cut", "screen", *(stage.name for stage in stages)])
    plan = Plan.of(stages, limits, engine.options.gpus)
    if built.note:
        Console(stderr=True).print(f"{task}: {built.note}", highlight=False)
    found = built.find(clips)
    if found.told:
        Console(stderr=True).print(f"{clips}: {found.told}", highlight=False, soft_wrap=True)
    sources = found.files
    identity = digest({"config": config, "steps": [s.model_dump(exclude={"license"}) for s in steps]})
    output.check()
    name, why = choose(engine.options, plan, sources)
    summary = Summary(task, identity, len(sources) + len(found.unusable), name)
    summary.left_out = dict(found.left_out)
    if visible_gpus() or engine.options.cluster:
        summary.gpus = {stage: needs.gpus for stage, needs in plan.stages.items() if needs.gpus}
    summary.quarantined = [str(unusable) for unusable in found.unusable]
    space = Workspace(workspace)
    job = Job(config, str(workspace), str(Path.cwd()), uuid.uuid4().hex[:8])
    with output.held(), OutcomeStore(space.local, built.cut.screen.alike) as store:
        output.claim(task, identity)
        space.sweep()
        try:
            collect(engine, (name, why), job, plan, sources, store, summary.stages)
            pairs, rejections = _pack(built, store, space, steps, summary)
            if pairs:
                summary.shards = len(output.write_shards(_items(store)))
        except sqlite3.Error as error:
            raise RunError(f"{store.folder}: {error}") from error
        finally:
            space.end_run(job.run)
        _write_pictures(output.local, task, pairs, rejections)
        note_costs(space, built, summary.stages, summary.source_frames)
        summary.finish(time.perf_counter() - began)
        lines = (json.dumps({"reason": reason}) + "\n" for reason in summary.quarantined)
        write_bytes(output.local / "quarantine.jsonl", "".join(lines).encode())
        write_json(output.local / "summary.json", asdict(summary))
        output.publish()
    return summary


def collect(
    engine: Engine,
    choice: tuple[str, str],
    job: Job,
    plan: Plan,
    sources: Sequence[str],
    store: OutcomeStore,
    work: dict[str, Work],
) -> None:
    """Run a job over its sources: outcomes into the store as they are finished, what they cost into `work`.

    Args:
        choice: of an engine and why, as `choose` gives it; it is said on stderr.
        work: stage -> what it cost, whatever became of the outcomes.

    Raises:
        RunError: the run cannot go on.
    """
    name, why = choice
    with RunProgress(len(sources)) as progress:
        progress.note(f"engine: {name}, {why}")
        if plan.wants_gpu and name != "ray" and not visible_gpus():
            progress.note(NO_GPU)
        with contextlib.closing(engine.outcomes(name, job, plan, sources, store, progress)) as outcomes:
            for outcome in outcomes:
                if outcome.fault:
                    raise RunError(outcome.fault)
                for stage, one in outcome.work.items():
                    work.setdefault(stage, Work()).add(one)
                store.add(outcome)
                progress.add(outcome)


def _pack(
    task: Task, store: OutcomeStore, space: Workspace, steps: list[Step], summary: Summary
) -> tuple[Sequence[Pair], Rejections]:
    """Count outcomes in the order of their sources, and put their samples in order.

    Returns what the page shows: accepted candidates, and what was not accepted.
    """
    shown = store.listing("pairs", PAIRS.validate_json)
    for outcome in store.finished():
        summary.add(outcome)
        clip = outcome.clip
        if clip is None or outcome.error or outcome.refused:
            continue
        for rejected in _rejected(outcome):
            store.reject(rejected.reason, REJECTED.dump_json(rejected).decode())
        accepted = [fetched(c, space) for c in outcome.candidates if not c.reason]
        for number, candidate in enumerate(accepted):
            made = task.build_samples(clip, candidate, number, steps)
            for sample, files in made:
                if not store.put_sample(sample.split, sample.key, sample.to_json().decode(), files):
                    raise SampleError(f"{sample.key}: two samples have this key")
            summary.samples += len(made)
            summary.accept(clip.split)
            sample, files = made[0]
            media = [
                Shown(name, name in sample.targets, file)
                for name, file in files.items()
                if sample.media[name].kind != "mask"
            ]
            texts = [each.text for each, _ in made]
            pair = Pair(sample.key, clip.split, texts, candidate.folder, media, candidate.scores)
            shown.append(PAIRS.dump_json(pair).decode())
    groups = [
        Group(reason, total, [(REJECTED.validate_json(text), count) for text, count in examples])
        for reason, total, examples in store.rejected(EXAMPLES)
    ]
    return shown, Rejections(groups, summary.refused_clips, summary.quarantined)


def _rejected(outcome: Outcome) -> Iterator[Rejected]:
    """What the page says of each candidate that a gate rejected."""
    clip = outcome.clip
    assert clip is not None
    for candidate in outcome.candidates:
        if candidate.reason and not candidate.error:
            first, stop = candidate.span(clip.frames)
            span = clip.start + first, clip.start + stop
            folder = candidate.folder if candidate.is_stored else None
            yield Rejected(candidate.reason, clip.source, *span, clip.fps, folder)


def fetched(candidate: Candidate, space: Workspace) -> Candidate:
    """The candidate with all its files on this machine."""
    return replace(candidate, folder=space.folder(space.reference(candidate.folder)))


def _items(store: OutcomeStore) -> Iterator[Item]:
    """All samples with their files, sorted."""
    for text, files in store.samples():
        yield parse_sample(text, "a sample of this run"), files


def _write_pictures(out: Path, task: str, pairs: Sequence[Pair], rejections: Rejections) -> None:
    """The contact sheet, where there is a pair, and the page, unless both show the same already."""
    content = [PAGE_PAIRS.dump_python(spread(pairs), mode="json"), len(pairs)]
    content += [PAGE_REJECTIONS.dump_python(rejections, mode="json"), code_of(report)]
    shown = digest(content)
    mark, page, sheet = out / "page.json", out / "gallery.html", out / "contact.jpg"
    there = mark.is_file() and page.is_file() and sheet.is_file() == bool(pairs)
    if there and json.loads(mark.read_text()) == {"shown": shown}:
        return
    mark.unlink(missing_ok=True)
    (out / "contact.png").unlink(missing_ok=True)  # an earlier version's
    if pairs:
        write_contact_sheet(sheet, pairs)
    else:
        sheet.unlink(missing_ok=True)
    write_gallery(page, pairs, task, rejections)
    write_json(mark, {"shown": shown})
