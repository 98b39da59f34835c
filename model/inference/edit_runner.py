"""Planned edits carried out: windows read, sampled, decoded and put together, in order or side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import torch

from model.config import InferenceConfig
from model.extras.faces import FacePolicy
from model.inference.edit_stream import FinishedWindow, PlannedEdit, stages_ahead
from model.inference.finishing import finish_window
from model.inference.request import Request
from model.inference.two_pass import masked_request, region_of
from model.inference.window import (
    Options,
    TextStates,
    Window,
    WindowEdit,
    WindowEditor,
    clips_of,
)
from model.streaming.frames import MaskFrames
from model.streaming.journal import Journal
from model.streaming.prefetch import behind, prefetch
from model.streaming.windows import Span

Progress = Callable[[int, int], None]
TEXTS_KEPT = 8  # requests whose text states are kept for the next ones


@dataclass(frozen=True)
class EditRunner:
    """Makes planned edits.

    Attributes:
        parts: an editor's.
        texts: states of the last requests' texts, by what they depend on; kept between runs.
    """

    parts: WindowEditor
    texts: dict[Hashable, TextStates]

    def windows(
        self,
        job: PlannedEdit,
        options: Options,
        journal: Journal | None = None,
        made: torch.Tensor | None = None,
    ) -> Iterator[FinishedWindow]:
        """The edit, in two passes where its region is asked for; `made` are latents of its only window."""
        options = dataclasses.replace(options, evaluations=job.evaluations)
        if job.region is None:
            yield from self._edited(job.plan, job.spans, options, journal, "edit", made, job.faces)
            return
        region = MaskFrames(job.plan.size)
        for window in self._edited(job.region, job.spans, options, journal, "region"):
            region.append(region_of(window.frames))
        plan = masked_request(job.plan, region) if region.marked else job.plan
        for window in self._edited(plan, job.spans, options, journal, "edit", faces=job.faces):
            yield dataclasses.replace(window, region=region.masks(window.start, window.stop))

    def sample_together(self, jobs: list[PlannedEdit], options: Options) -> list[torch.Tensor | None]:
        """Latents of edits of one window, side by side; None of those that are sampled on their own."""
        sampled: list[torch.Tensor | None] = [None] * len(jobs)
        short = [n for n, job in enumerate(jobs) if len(job.spans) == 1 and job.region is None]
        if len(short) < 2 or options.shortcuts.step_cache or options.shortcuts.context_tokens < 1:
            return sampled
        windows = []
        for job in (jobs[n] for n in short):
            states = self._encoded_texts(job.plan, options.inference)
            windows.append(Window(job.plan, job.spans[0], clips_of(job.plan, job.spans[0]), states, None))
        for n, latents in zip(short, self.parts.sample_packed(windows, options), strict=True):
            sampled[n] = latents
        return sampled

    def _edited(
        self,
        plan: Request,
        spans: list[Span],
        options: Options,
        journal: Journal | None,
        name: str,
        sampled: torch.Tensor | None = None,
        faces: FacePolicy = FacePolicy.NONE,
    ) -> Iterator[FinishedWindow]:
        """One pass. Reading, sampling and composition run side by side where there are several windows."""
        states = self._encoded_texts(plan, options.inference)
        # A mask says where the edit belongs; without one, what is kept is found by comparing.
        masked = any(element.startswith("mask") for element in plan.clips)
        compared = options.extras.detail_transfer or (options.keep is not None and not masked)
        followed = plan.source if compared else None
        if followed is not None and plan.clips[followed].still != plan.still:
            followed = None  # a picture is not where a video's detail comes from
        ahead = stages_ahead(plan, spans)

        def read() -> Iterator[Window]:
            for span in spans:
                yield Window(plan, span, clips_of(plan, span), states, followed)

        def edit() -> Iterator[tuple[Window, WindowEdit]]:
            before = None
            for number, window in enumerate(prefetch(read(), ahead)):
                key = f"{name}-{number:06d}"
                kept = None if journal is None else journal.load(key)
                if self.parts.group is not None:  # the first process alone has a journal
                    kept = self.parts.group.from_first(kept)
                made = sampled if kept is None else torch.from_numpy(kept).to(self.parts.device)
                before = self.parts.edit(window, options, before, made)
                if journal is not None and kept is None:
                    journal.store(key, before.latents.cpu().numpy())
                for _ in range(options.inference.steps if kept is not None else 0):
                    options.tick()
                yield window, before

        yield from behind(edit(), lambda pair: finish_window(*pair, options.keep, faces), ahead)

    def _encoded_texts(self, plan: Request, inference: InferenceConfig) -> TextStates:
        """Of a request's texts, encoded or as they were for one of the last requests."""
        key = (plan.instruction.parts, plan.target, inference.negative)
        if key not in self.texts:
            self.texts[key] = self.parts.encode_texts(plan, inference)
            while len(self.texts) > TEXTS_KEPT:
                self.texts.pop(next(iter(self.texts)))
        return self.texts[key]


@contextlib.contextmanager
def ticking(progress: Progress | bool | None, total: int) -> Iterator[Callable[[], None]]:
    """A function to call after every solver step; it counts for the caller's function or a terminal's bar."""
    done = itertools.count(1)
    if progress is True:
        from rich.progress import Progress as Bar

        with Bar(transient=True) as bar:
            task = bar.add_task("editing", total=total)
            yield lambda: bar.advance(task)
    elif callable(progress):
        yield lambda: progress(next(done), total)
    else:
        yield lambda: None
