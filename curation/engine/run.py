"""`python -m curation run`: one task over a folder of clips, to shards, a table and a gallery."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from curation.core.cache import Work, Workspace
from curation.core.outcome import Outcome
from curation.core.task import Task
from curation.engine.dry_run import note_costs
from curation.engine.executor import MAX_SILENCE, run_local, run_ray
from curation.engine.output import Output
from curation.engine.progress import RunProgress
from curation.engine.report import Pair, Rejected, Rejections, Shown, write_contact_sheet, write_gallery
from curation.engine.task_config import RunError, build, load_config
from shards.files import write_bytes, write_json
from shards.hashing import digest
from shards.sample import Step
from shards.writer import Item


@dataclass
class Summary:
    """The numbers of a run: what its table shows and its `summary.json` holds."""

    task: str
    config: str
    files: int
    clips: int = 0
    source_frames: int = 0
    candidates: int = 0
    accepted: int = 0
    accepted_by_split: dict[str, int] = field(default_factory=dict)
    refused_clips: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)  # files by suffix that are no videos
    samples: int = 0
    shards: int = 0
    seconds: float = 0.0
    seconds_per_clip: float = 0.0
    work_ms_per_source_frame: float = 0.0
    stages: dict[str, Work] = field(default_factory=dict)


def run(
    task: str,
    clips: str | Path,
    out: str | Path,
    workspace: str | Path,
    config_path: Path,
    workers: int,
    gpus: float = 0.0,
    max_silence: float = MAX_SILENCE,
) -> Summary:
    """Run a task. Raises an EditVerseError, of one line; returns the summary that was written."""
    began = time.perf_counter()
    config = load_config(task, config_path)
    built = build(config)
    steps = built.steps()  # names a missing model before any work
    if built.note:
        Console(stderr=True).print(f"{task}: {built.note}", highlight=False)
    sources = built.find(str(clips))
    if sources.told:
        Console(stderr=True).print(f"{clips}: {sources.told}", highlight=False, soft_wrap=True)
    files = list(sources.files)
    identity = digest({"config": config, "steps": [s.model_dump() for s in steps]})
    output, space = Output(out), Workspace(workspace)
    output.check()
    summary = Summary(task, identity, len(files) + len(sources.unusable))
    summary.left_out = dict(sources.left_out)
    summary.quarantined = [str(unusable) for unusable in sources.unusable]
    with output.held():
        output.claim(task, identity)
        space.sweep()
        with RunProgress(len(files)) as progress:
            outcomes = (
                run_ray(files, config, workspace, workers, gpus, max_silence, progress=progress)
                if workers and files
                else run_local(files, config, workspace, progress)
            )
            with contextlib.closing(outcomes):
                done = _collect(outcomes, summary, progress)
        items, shown = _items(built, done, steps, space)
        summary.accepted = len(shown)
        summary.accepted_by_split = dict(sorted(Counter(pair.split for pair in shown).items()))
        if items:
            summary.samples = len(items)
            summary.shards = len(output.write_shards(items))
        _write_pictures(output.local, task, shown, done, summary)
        note_costs(space, task, summary.stages, summary.source_frames)
        summary.seconds = round(time.perf_counter() - began, 2)
        summary.seconds_per_clip = round(summary.seconds / max(1, summary.clips), 2)
        cpu = sum(w.cpu_seconds for w in summary.stages.values())
        summary.work_ms_per_source_frame = round(1000 * cpu / max(1, summary.source_frames), 2)
        lines = "".join(json.dumps({"reason": q}) + "\n" for q in summary.quarantined)
        write_bytes(output.local / "quarantine.jsonl", lines.encode())
        write_json(output.local / "summary.json", asdict(summary))
        output.publish()
    return summary


def print_table(summary: Summary, out: str | Path) -> None:
    """The table at the end of a run, on stdout."""
    table = Table(
        title=f"{summary.task}: {summary.files} file(s), {summary.clips} clip(s)", show_header=False
    )
    for reason, count in summary.refused_clips.items():
        table.add_row(f"clips refused: {reason}", str(count))
    table.add_row("candidates", str(summary.candidates))
    split = ", ".join(f"{n} {name}" for name, n in sorted(summary.accepted_by_split.items()))
    table.add_row("accepted", f"{summary.accepted}" + (f"  ({split})" if split else ""))
    for reason, count in summary.rejected.items():
        table.add_row(f"rejected: {reason}", str(count))
    table.add_row("quarantined", str(len(summary.quarantined)))
    for reason in summary.quarantined:
        table.add_row("", reason)
    table.add_row("samples, shards", f"{summary.samples}, {summary.shards}")
    table.add_row("seconds", f"{summary.seconds:.1f}  ({summary.seconds_per_clip:.1f} per clip)")
    table.add_row("work per source frame", f"{summary.work_ms_per_source_frame:.1f} ms")
    for name, work in summary.stages.items():
        each = 1000 * work.cpu_seconds / max(1, summary.source_frames)
        table.add_row(f"  {name}", f"{work.computed} computed, {work.reused} reused, {each:.1f} ms")
    Console().print(table)
    if summary.accepted:
        Console().print(f"shards, contact.jpg, gallery.html, summary.json: {out}", soft_wrap=True)


def _collect(outcomes: Iterator[Outcome], summary: Summary, progress: RunProgress) -> list[Outcome]:
    """Take in outcomes as they are finished, and count them."""
    done: list[Outcome] = []
    for outcome in outcomes:
        if outcome.fault:
            raise RunError(outcome.fault)
        done.append(outcome)
        for stage, work in outcome.work.items():
            into = summary.stages.setdefault(stage, Work())
            into.computed += work.computed
            into.reused += work.reused
            into.cpu_seconds = round(into.cpu_seconds + work.cpu_seconds, 3)
            into.seconds = round(into.seconds + work.seconds, 3)
        progress.add(outcome)
    # The order in which workers finish must not show.
    done.sort(key=lambda o: o.place)
    rejected: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for outcome in done:
        if outcome.error:
            summary.quarantined.append(outcome.error)
        elif outcome.refused:
            refused[outcome.refused] += 1
        elif outcome.clip:
            summary.clips += 1
            summary.source_frames += outcome.clip.frames
            summary.candidates += len(outcome.candidates)
            for candidate in outcome.candidates:
                if candidate.error:
                    where = f"{outcome.file}, frames {outcome.clip.start} to {outcome.clip.stop}"
                    summary.quarantined.append(f"{where}: {candidate.error}")
                elif candidate.reason:
                    rejected[candidate.reason] += 1
    summary.refused_clips = dict(sorted(refused.items()))
    summary.rejected = dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0])))
    summary.stages = dict(sorted(summary.stages.items()))
    return done


def _items(
    task: Task, done: list[Outcome], steps: list[Step], space: Workspace
) -> tuple[list[Item], list[Pair]]:
    """Samples with their files, and what the gallery shows of each accepted candidate."""
    items: list[Item] = []
    shown: list[Pair] = []
    seen: set[str] = set()
    for outcome in done:
        clip = outcome.clip
        if clip is None or outcome.error or clip.key in seen:
            continue
        seen.add(clip.key)  # two files of the same bytes give one set of samples
        accepted = [c for c in outcome.candidates if not c.reason]
        for number, candidate in enumerate(accepted):
            space.folder(space.reference(candidate.folder))  # fetches its files
            made = task.build_samples(clip, candidate, number, steps)
            items += made
            sample, files = made[0]
            media = [
                Shown(name, name in sample.targets, file)
                for name, file in files.items()
                if sample.media[name].kind != "mask"
            ]
            texts = [each.text for each, _ in made]
            shown.append(Pair(sample.key, clip.split, texts, candidate.folder, media, candidate.scores))
    return items, shown


def _write_pictures(out: Path, task: str, shown: list[Pair], done: list[Outcome], summary: Summary) -> None:
    """The contact sheet, where there is a pair, and the page; what an earlier run called them goes."""
    (out / "contact.png").unlink(missing_ok=True)
    if shown:
        write_contact_sheet(out / "contact.jpg", shown)
    else:
        (out / "contact.jpg").unlink(missing_ok=True)
    candidates = []
    for outcome in done:
        if clip := outcome.clip:
            for candidate in outcome.candidates:
                if candidate.reason and not candidate.error:
                    first, stop = candidate.span(clip.frames)
                    span = clip.start + first, clip.start + stop
                    folder = candidate.folder if candidate.is_stored else None
                    candidates.append(Rejected(candidate.reason, clip.source, *span, clip.fps, folder))
    rejections = Rejections(candidates, summary.refused_clips, summary.quarantined)
    write_gallery(out / "gallery.html", shown, task, rejections)
