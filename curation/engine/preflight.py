"""`python -m curation run ... --dry-run --load`: every part is loaded and works on one clip of noise.

The parts of a stage share a process of its own, which ends before the next one starts, as with `--engine
passes`. The clip is as large and as long as the task cuts them, so that the peak of memory is that of a run.
What fails is told of all parts at once.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from curation.core.outcome import Outcome
from curation.core.stage import Stage
from curation.core.task import Task
from curation.engine.local import end_with_parent, forkserver
from curation.engine.memory import has_cuda, visible_gpus
from curation.engine.task_config import RunError, TaskConfig, build
from curation.engine.worker import guarded
from curation.vlm.weights import GIB
from shards.processes import background_processes, peak_memory, uninterrupted, work_in_background
from shards.terminal import print_table

RATE = 30000 / 1001  # of the clip: the frames per second of much real footage, which a program may refuse
LENGTH, SIZE = 33, (480, 832)  # of the clip where the task says nothing
QUESTION = (
    "How pleasing is it to look at? Grade it from 0 (not at all) to 10 (perfectly), by the number alone."
)
NOISE = "a clip of noise"
SAME = "as in stage "  # of a part that an earlier stage has, too
LOOK = 0.1  # seconds between two looks at the memory of a GPU


@dataclass(frozen=True)
class Noise:
    """A clip of noise, uint8 [T, H, W, 3], a hole in it (bool [T, H, W]), its box (float32 [1, 4])."""

    frames: np.ndarray
    mask: np.ndarray
    box: np.ndarray

    @staticmethod
    def like_clips_of(task: Task) -> Noise:
        """As large as the frames of a task, as long as its windows."""
        height, width = task.cut.box or SIZE
        count = int(getattr(task, "length", LENGTH))
        frames = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
        mask = np.zeros(frames.shape[:3], bool)
        mask[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = True
        box = [width // 4, height // 4, width - width // 4, height - height // 4]
        return Noise(frames, mask, np.array([box], np.float32))

    def first(self, count: int) -> Noise:
        """The same of the first frames alone."""
        return replace(self, frames=self.frames[:count], mask=self.mask[:count])

    @property
    def frame(self) -> np.ndarray:
        """The first frame."""
        return self.frames[0]


@dataclass(frozen=True)
class Probe:
    """How an annotator is tried.

    Attributes:
        call: with it and a clip.
        warm_up: frames of a first call, in which the weights are loaded; None where one call does both.
        of_a_picture: whether it looks at one frame.
    """

    call: Callable[[Any, Noise], object]
    warm_up: int | None
    of_a_picture: bool = False


def _ask(vlm: Any, clip: Noise) -> None:
    vlm.ask([clip.frames], "Describe the video in one sentence.")
    vlm.rate([clip.frames], QUESTION)


# Method of an interface -> how it is tried; the first that an annotator has is taken.
PROBES = {
    "inpaint": Probe(lambda a, clip: a.inpaint(clip.frames, clip.mask, RATE, "a meadow"), 25),
    "generate": Probe(lambda a, clip: a.generate(clip.frames, clip.mask, "a meadow"), 5),
    "move": Probe(lambda a, clip: a.move(clip.frames, a.movements()[0], RATE, "a meadow"), None),
    "edit": Probe(lambda a, clip: a.edit(clip.frame, "Turn it into an oil painting."), 1, True),
    "inverse_depth": Probe(lambda a, clip: a.inverse_depth(clip.frames), 1),
    "propagate": Probe(lambda a, clip: a.propagate(clip.frames, 0, clip.box), 2),
    "find": Probe(lambda a, clip: a.find(clip.frame, ["person", "dog"]), 1, True),
    "poses": Probe(lambda a, clip: a.poses(clip.frame, clip.box), 1, True),
    "rate": Probe(_ask, 4),
    "stylize": Probe(lambda a, clip: a.stylize(clip.frames, next(iter(a.styles()))), 2),
    "edges": Probe(lambda a, clip: a.edges(clip.frames), 1),
    "segment": Probe(lambda a, clip: a.segment(clip.frame, clip.box[0]), 1, True),
    "detect": Probe(lambda a, clip: a.detect(clip.frame), 1, True),
    "track": Probe(lambda a, clip: a.track(clip.frames, {}), 2),
    "motion": Probe(lambda a, clip: a.motion(clip.frames), 2),
    "plate": Probe(lambda a, clip: a.plate(clip.frames), 2),
    "plates": Probe(lambda a, clip: a.plates(clip.frames), 2),
    "caption": Probe(lambda a, clip: a.caption(clip.frames, None), 2),
}


@dataclass(frozen=True)
class Checked:
    """What a part did.

    Attributes:
        stage: of the part; part: its class.
        loading: seconds of the first call on a few frames, which loads; None where it is in `seconds`.
        seconds: for a frame of the clip; None where it was not run.
        memory: peak of main memory of the process and of programs that it ran, GiB.
        gpu: peak of its GPU's memory, GiB: what torch allocated, or what the GPU's use rose by where a
            program works for it; None without a GPU.
        note: what else is to be told.
        error: why it does not work.
    """

    stage: str
    part: str
    loading: float | None = None
    seconds: float | None = None
    memory: float = 0.0
    gpu: float | None = None
    note: str = ""
    error: str = ""


def parts_of_stage(stage: Stage) -> list[Any]:
    """The annotators of a stage that ask no other one, those inside others too."""

    def inner(annotator: Any) -> Iterator[Any]:
        parts = getattr(annotator, "parts", {}).values()
        for part in parts:
            yield from inner(part)
        if not parts:
            yield annotator

    return [part for annotator in stage.annotators for part in inner(annotator)]


def preflight(name: str, config: TaskConfig) -> None:
    """Load and run every part of a task, print what each took, and tell what fails.

    Args:
        name: of the task.

    Raises:
        RunError: a part does not work; each is told on stderr in a line of its own.
    """
    task = build(config)
    clip = Noise.like_clips_of(task).frames
    checked, stages_of = list[Checked](), dict[str, str]()
    for stage in task.graph:
        parts = parts_of_stage(stage)
        keys = [f"{type(part)} {vars(part)}" for part in parts]  # equal ones are the same model
        new = [number for number, key in enumerate(keys) if key not in stages_of]
        checked += [
            Checked(stage.name, type(part).__name__, note=f"{SAME}{stages_of[key]}")
            for part, key in zip(parts, keys, strict=True)
            if key in stages_of
        ]
        stages_of |= dict.fromkeys(keys, stage.name) | stages_of
        if new:
            checked += _in_a_process(config, stage, new)
    if not checked:
        print(f"{name}: no stage has an annotator, there is nothing to load")
        return
    columns = ("stage", "part", "loading, s", "seconds a frame", "memory, GiB", "GPU, GiB", "")
    table = Table(*columns, title=f"noise: {len(clip)} frames of {clip.shape[2]}x{clip.shape[1]}")
    for one in checked:
        numbers = (one.loading, one.seconds, one.memory or None, one.gpu)
        told = ["" if n is None else f"{n:.{p}f}" for n, p in zip(numbers, (1, 4, 2, 2), strict=True)]
        table.add_row(one.stage, one.part, *told, "fails" if one.error else one.note)
    print_table(table)
    if not visible_gpus():
        print("No GPU here: parts work on the processor.")
    failed = [one for one in checked if one.error]
    for one in failed:
        where = "" if one.error.startswith("stage ") else f"stage {one.stage}, {one.part}: "
        print(f"error: {where}{one.error}", file=sys.stderr)
    if failed:
        different = sum(not one.note.startswith(SAME) for one in checked)
        raise RunError(f"{name}: {len(failed)} of {different} parts do not work, each in a line above")


def _in_a_process(config: TaskConfig, stage: Stage, numbers: Sequence[int]) -> list[Checked]:
    """What the parts of a stage with these numbers did, in a fresh process."""
    context = forkserver()
    ours, theirs = context.Pipe(duplex=False)
    with background_processes():
        process = context.Process(target=_check, args=(config, str(Path.cwd()), stage.name, numbers, theirs))
        process.start()
    theirs.close()
    checked = list[Checked]()
    try:
        with contextlib.suppress(EOFError):
            while True:
                checked.append(ours.recv())
        process.join()
    finally:
        with uninterrupted():
            process.kill()
            process.join()
    if len(checked) < len(numbers):
        part = type(parts_of_stage(stage)[numbers[len(checked)]]).__name__
        code = process.exitcode
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        checked.append(Checked(stage.name, part, error=f"its process died ({how}); main memory may be short"))
    return checked


def _check(config: TaskConfig, folder: str, stage_name: str, numbers: Sequence[int], pipe: Any) -> None:
    """What the process of a stage does: each part in turn, and what it did into the pipe."""
    work_in_background()
    end_with_parent()
    os.chdir(folder)
    # What is missing is told, not fetched; and no bars of progress among the lines that tell it.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    task = build(config)
    (stage,) = [stage for stage in task.graph if stage.name == stage_name]
    clip, parts = Noise.like_clips_of(task), parts_of_stage(stage)
    for number in numbers:
        pipe.send(try_part(stage, parts[number], clip))
    pipe.close()


def try_part(stage: Stage, part: Any, clip: Noise) -> Checked:
    """Load an annotator of a stage in this process, and run it on a clip."""
    outcome, done = Outcome(NOISE), Checked(stage.name, type(part).__name__)
    probe = next((probe for method, probe in PROBES.items() if hasattr(part, method)), None)
    seconds = list[float]()

    def attempt() -> None:
        part.describe()  # names what is missing
        if probe is None:
            return
        clips = [clip] if probe.warm_up is None else [clip.first(probe.warm_up), clip]
        for one in clips:
            begin = time.perf_counter()
            probe.call(part, one)
            seconds.append(time.perf_counter() - begin)

    with gpu_peak() as peak:
        guarded(attempt, [outcome], stage)
    error = outcome.fault or outcome.error.removeprefix(f"{NOISE}: ")
    done = replace(done, error=error, memory=most_memory(), gpu=peak[0] if peak else None)
    if probe is None:
        return replace(done, note="described, not run: of an interface that is not known here")
    if error:
        return done
    each = seconds[-1] / (1 if probe.of_a_picture else len(clip.frames))
    loading = seconds[0] if len(seconds) > 1 else None
    return replace(done, seconds=each, loading=loading, note="" if loading is not None else "with loading")


def most_memory() -> float:
    """GiB of main memory that this process has had at most, or a program of its own, ended or not."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    running = [0]
    gone = contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration)  # it has just ended
    for thread in Path("/proc/self/task").glob("*/children"):
        children: list[str] = []
        with gone:
            children = thread.read_text().split()
        for child in children:
            with gone:
                running.append(peak_memory(int(child)))
    return max(peak_memory(), ended, *running) / GIB


@contextlib.contextmanager
def gpu_peak() -> Iterator[list[float]]:
    """A list that holds the peak of this process's GPU, GiB, after the block; empty without a GPU."""
    peak = list[float]()
    if not has_cuda():
        yield peak
        return
    import torch

    torch.cuda.reset_peak_memory_stats()
    ended, used = threading.Event(), list[int]()

    def watch() -> None:
        while not ended.wait(LOOK):
            free, total = torch.cuda.mem_get_info()
            used.append(total - free)

    free, total = torch.cuda.mem_get_info()
    used.append(total - free)
    watcher = threading.Thread(target=watch, name="gpu", daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
        peak.append((torch.cuda.max_memory_allocated() or max(used) - used[0]) / GIB)
