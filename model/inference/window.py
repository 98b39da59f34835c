"""One window of an edit: texts and sources encoded, the target sampled and decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from model.acceleration.config import Shortcuts
from model.acceleration.network import accelerated
from model.acceleration.sequence_parallel import SequenceGroup
from model.acceleration.sparse_sampling import SparseContext
from model.acceleration.step_cache import Evaluations
from model.config import InferenceConfig, ModelConfig, fitted_size
from model.encoders import Codec, TextEncoder
from model.extras.config import ExtrasConfig
from model.extras.detail_transfer import change_map, limit_to_mask
from model.extras.keeping import Keep
from model.inference.offload import Offload
from model.inference.request import Request
from model.inference.sampler import Job, check_finite, packs, sample_many
from model.net.transformer import Transformer
from model.rng import keyed
from model.sequence.interleave import (
    TokenSequence,
    build_sequence,
    interleave,
    patchify,
    texts_of,
    unpatchify,
)
from model.sequence.pixels import to_float, to_pixels
from model.sequence.prompts import prompt_of
from model.streaming.windows import Span
from shards.media import resize

PACKED_TOKENS = 16_384  # of edits that are sampled side by side
DAMAGED = "the codec's settings or weights are damaged"
# Called after every solver step with a function that decodes the middle frame of the window as predicted
# so far, uint8 RGB [H, W, 3] at the model's size: who does not call it pays nothing.
Preview = Callable[[Callable[[], np.ndarray]], None]


@dataclass(frozen=True)
class Options:
    """How an edit is made.

    `tick` is called after every solver step; `keep` is how the source is kept outside of the edit, None as
    `extras` says; `evaluations` counts how often the network was run; `preview` see `Preview`.
    """

    inference: InferenceConfig
    extras: ExtrasConfig
    shortcuts: Shortcuts
    seed: int
    tick: Callable[[], None]
    keep: Keep | None = None
    evaluations: Evaluations = field(default_factory=Evaluations)
    preview: Preview | None = None


@dataclass(frozen=True)
class TextStates:
    """Token states float [tokens, width] of a request's texts.

    Attributes:
        pieces: of each piece of text that is among the tokens.
        prompt, negative: of the prompts of the two branches, of models that take one.
    """

    pieces: dict[str, Tensor]
    prompt: Tensor | None = None
    negative: Tensor | None = None


@dataclass(frozen=True)
class Window:
    """What is edited at once.

    Attributes:
        plan: the whole request.
        span: its frames in the request.
        clips: uint8 [T, H, W, 3], the media of this window.
        states: of the request's texts, see `WindowEditor.encode_texts`.
        followed: name of the source whose details the result takes, if any.
    """

    plan: Request
    span: Span
    clips: dict[str, np.ndarray]
    states: TextStates
    followed: str | None


@dataclass(frozen=True)
class WindowEdit:
    """What became of a window, at the model's size.

    Attributes:
        latents: float [t, h, w, C], on the device.
        pixels: float [T, H, W, 3] in [-1, 1].
        edited: float [T, H, W, 1] in [0, 1], how much of a pixel is the edit's, against the element
            `followed`; 1 everywhere without one.
    """

    latents: Tensor
    pixels: Tensor
    edited: Tensor


@dataclass(frozen=True)
class WindowEditor:
    """An editor's parts at work; with `offload`, one at a time on the device."""

    dit: Transformer
    vae: Codec
    text_encoder: TextEncoder
    config: ModelConfig
    device: torch.device
    offload: Offload | None = None
    group: SequenceGroup | None = None

    def _use(self, part: Transformer | Codec | TextEncoder) -> None:
        if self.offload is not None:
            self.offload.use(part)

    def encode_texts(self, plan: Request, inference: InferenceConfig) -> TextStates:
        """Token states of all texts, encoded together.

        Models that take prompts get the one that they were trained to read, and in the unconditional branch
        the negative one.
        """
        layout, instruction = self.config.sequence, plan.instruction
        pieces = list(dict.fromkeys(texts_of(instruction.parts))) if layout.has_words else []
        prompts = []
        if layout.has_prompt:
            prompt = prompt_of(instruction.parts, plan.target, layout.system_prompt)
            prompts = [prompt, inference.negative]
        self._use(self.text_encoder)
        encoded = [states.to(self.device) for states in self.text_encoder.encode([*prompts, *pieces])]
        by_piece = dict(zip(pieces, encoded[len(prompts) :], strict=True))
        return TextStates(by_piece, *encoded[: len(prompts)])

    @torch.inference_mode()
    def edit(
        self, window: Window, options: Options, before: WindowEdit | None = None, made: Tensor | None = None
    ) -> WindowEdit:
        """One window.

        Args:
            before: the window before, whose last frames a window with an overlap goes on from.
            made: latents that were sampled earlier; the window is only decoded then.

        Raises:
            NotFiniteError: latents or pixels that are no numbers.
        """
        plan, followed = window.plan, window.followed
        shape = (window.span.frames, *plan.work)
        videos = self._fitted(window)
        latents = self._encode(videos if made is None else {n: v for n, v in videos.items() if n == followed})
        if made is None:
            known = self._carried(window.span, before) if before is not None else None
            made = self._sample(window, latents, options, known)
        self._use(self.vae)
        edit = self.vae.decode(made, shape)
        check_finite(edit, "the decoded pixels", DAMAGED)
        edit = edit.clamp(-1, 1)
        edited = torch.ones(*shape, 1)
        if followed is not None and videos[followed].shape == edit.shape:
            coded = self.vae.decode(latents[followed], shape).clamp(-1, 1)
            edited = change_map(edit, coded, options.extras.blend_low, options.extras.blend_high)
            for name, video in videos.items():
                if name.startswith("mask") and video.shape[1:] == edit.shape[1:]:
                    edited = limit_to_mask(edited, video)
                    break
        alone = WindowEdit(made, edit.cpu(), edited.cpu())
        return alone if before is None else faded(alone, before, window.span.overlap, self.vae.temporal)

    def _fitted(self, window: Window) -> dict[str, Tensor]:
        """Media of a window at the model's size, float [T, h, w, 3] in [-1, 1], on the device."""
        plan, clips = window.plan, window.clips
        return {name: to_float(self._fit(clip, plan, name)).to(self.device) for name, clip in clips.items()}

    def _encode(self, videos: dict[str, Tensor]) -> dict[str, Tensor]:
        """Latents [t, h, w, C]; NotFiniteError names the element."""
        self._use(self.vae)
        latents = {name: self.vae.encode(video).to(self.device) for name, video in videos.items()}
        for name, value in latents.items():
            check_finite(value, f"the latents of <{name}>", DAMAGED)
        return latents

    def _carried(self, span: Span, before: WindowEdit) -> Tensor | None:
        """Clean latents [k, h, w, C] that a span begins with, from the one before; None without an overlap.

        The first latent of a window holds one frame, so it is encoded from the picture. The next ones hold
        the same frames in both windows.
        """
        if not span.overlap:
            return None
        head = self.vae.encode(before.pixels[-span.overlap :][:1].to(self.device)).to(self.device)
        first = len(before.latents) - (span.overlap - 1) // self.vae.temporal
        last = first + carried_groups(span.overlap, self.vae.temporal)
        return torch.cat([head, before.latents[first:last]])

    def _sample(
        self, window: Window, sources: dict[str, Tensor], options: Options, known: Tensor | None
    ) -> Tensor:
        """Latents [t, h, w, C] of the target, whose first ones are the `known`."""
        job, first = self._job(window, sources, options, known)

        def decoded(tokens: Tensor) -> np.ndarray:
            middle, temporal = window.span.frames // 2, self.vae.temporal
            last = -(-middle // temporal)  # the latent that holds it; the one before gives it its context
            near = self._latents(job, first, tokens)[max(0, last - 1) : last + 1]
            shape = (1 + temporal * (len(near) - 1), *window.plan.work)
            frame = 1 + (middle - 1) % temporal if middle else 0
            return to_pixels(self.vae.decode(near, shape)[frame : frame + 1].clamp(-1, 1))[0]

        show = options.preview if self.offload is None else None  # else the codec is not on the device
        with accelerated(self.dit, options.shortcuts):
            (tokens,) = sample_many(
                *(self.dit, [job], self.config.flow, options.inference, options.tick),
                shortcuts=options.shortcuts,
                evaluations=options.evaluations,
                preview=show and (lambda tokens: show(lambda: decoded(tokens))),
                group=self.group,
            )
        return self._latents(job, first, tokens)

    @torch.inference_mode()
    def sample_packed(self, windows: Sequence[Window], options: Options) -> list[Tensor]:
        """Latents [t, h, w, C] of windows without one before, sampled side by side: for `edit` to decode.

        Packs have at most `PACKED_TOKENS` tokens. There is no step cache here: it would ask all windows of a
        pack together whether the network is to be run.

        Raises:
            NotFiniteError: as `edit`.
        """
        jobs = [self._job(window, self._encode(self._fitted(window)), options, None) for window in windows]
        latents: dict[int, Tensor] = {}
        flow, inference = self.config.flow, options.inference
        with accelerated(self.dit, options.shortcuts):
            for pack in packs([job for job, _ in jobs], flow, inference, PACKED_TOKENS):

                def tick(edits: int = len(pack)) -> None:
                    for _ in range(edits):
                        options.tick()

                sampled = sample_many(
                    *(self.dit, [jobs[n][0] for n in pack], flow, inference, tick), group=self.group
                )
                latents |= {
                    n: self._latents(*jobs[n], tokens) for n, tokens in zip(pack, sampled, strict=True)
                }
        return [latents[number] for number in range(len(windows))]

    def _latents(self, job: Job, first: list[Tensor], tokens: Tensor) -> Tensor:
        """The latents that sampled tokens stand for, behind those that were given."""
        made = unpatchify(tokens, job.with_text.target.size, self.config.sequence.patch)
        return torch.cat([*first, made])

    def _job(
        self, window: Window, sources: dict[str, Tensor], options: Options, known: Tensor | None
    ) -> tuple[Job, list[Tensor]]:
        """What is to be sampled, and latents of a first frame that is given, if any."""
        plan, inference = window.plan, options.inference
        t, *sides = self.vae.latent_size(window.span.frames, *plan.work)
        first = [] if plan.first_frame is None else [sources[plan.first_frame]]
        target = torch.zeros(t - len(first), *sides, self.vae.channels, device=self.device)
        latents = {**sources, plan.target: target}
        self._use(self.dit)
        with_text, without_text = (self._sequence(window, latents, drop) for drop in (False, True))
        fewer = self._with_fewer_sources(window, latents, inference)
        rows, columns = with_text.target.size[1:]
        noise = self._noise(window, t, rows * columns, options.seed)[len(first) * rows * columns :]
        fixed = None if known is None else patchify(known, self.config.sequence.patch)
        context = sparse_context(window, with_text, options)
        return Job(with_text, without_text, noise, fewer, fixed, context), first

    def _noise(self, window: Window, latents: int, tokens: int, seed: int) -> Tensor:
        """float32 [latents * tokens, width]: what a latent starts from depends on its place in the request.

        So latents that two windows share start from the same. Those of a window at the beginning are drawn
        together, the others one by one.
        """
        width, temporal = self.config.network.vision_dim, self.vae.temporal
        begin = -(-window.span.start // temporal)
        longest = min(window.plan.length, 1 + (self.config.media.frames - 1) // temporal * temporal)
        together = latents if not begin else self.vae.latent_size(longest, *window.plan.work)[0]
        drawn = together if begin < together else 0
        opening = torch.randn(drawn * tokens, width, generator=keyed("edit", seed))
        later = [
            torch.randn(tokens, width, generator=keyed("edit", seed, number))
            for number in range(max(begin, together), begin + latents)
        ]
        return torch.cat([opening[begin * tokens :], *later])[: latents * tokens]

    def _sequence(
        self, window: Window, latents: dict[str, Tensor], drop: bool, gone: Collection[str] = ()
    ) -> TokenSequence:
        """The request's tokens, without its text if `drop`, and without the sources `gone`."""
        layout, plan, states = self.config.sequence, window.plan, window.states
        elements = interleave(
            [part for part in plan.instruction.parts if part[0] == "text" or part[1] not in gone],
            {name: value for name, value in latents.items() if name not in gone},
            plan.target,
            states.pieces.__getitem__,
            drop_text=drop,
            prompt=states.negative if drop else states.prompt,
            has_words=layout.has_words,
            first_frame=plan.first_frame,
        )
        return build_sequence(elements, layout, self.vae.spatial)

    def _with_fewer_sources(
        self, window: Window, latents: dict[str, Tensor], inference: InferenceConfig
    ) -> list[tuple[TokenSequence, float]]:
        """Links of the guidance on sources: without any, then with the videos (and masks), see `sample`."""
        inputs = window.plan.instruction.inputs
        images = {name for name in inputs if name.startswith("image")}
        videos = set(inputs) - images
        links: list[tuple[set[str], float]] = []
        if images and inference.image_guidance != 1:
            links.append((images, inference.image_guidance))
        if videos and inference.video_guidance != 1:
            links.insert(0, (images | videos, inference.video_guidance))
        return [(self._sequence(window, latents, True, gone), scale) for gone, scale in links]

    def _fit(self, frames: np.ndarray, plan: Request, name: str) -> np.ndarray:
        """A medium at the model's size; a first frame at that of its video."""
        height, width = frames.shape[1:3]
        multiple = self.vae.spatial * self.config.sequence.patch
        size = fitted_size(height, width, self.config.media, multiple)
        return resize(frames, plan.work if name == plan.first_frame else size)


def clips_of(plan: Request, span: Span) -> dict[str, np.ndarray]:
    """Frames of a request's media, uint8 [T, H, W, 3], that a window is made of."""
    clips = plan.clips.items()
    return {n: c.frames[:] if c.still else c.frames[span.start : span.stop] for n, c in clips}


def carried_groups(overlap: int, temporal: int) -> int:
    """Latents, beside the first, that a window takes over from the one before: half of those they share.

    The other half is made anew, for the fade from one to the other. None where the grids do not meet.
    """
    return 0 if (overlap - 1) % temporal else (overlap - 1) // temporal // 2


def faded(window: WindowEdit, before: WindowEdit, overlap: int, temporal: int) -> WindowEdit:
    """A window whose first frames go over from those of the one before, linearly in time.

    As in tiled decoding of a VAE, of pixels and change maps; the frames that were taken over stay.
    """
    if not overlap:
        return window
    taken = 1 + temporal * carried_groups(overlap, temporal)
    steps = torch.arange(1, overlap + 1) - taken
    share = (steps / (overlap - taken + 1)).clamp(0, 1)[:, None, None, None]
    pixels, edited = (
        torch.cat([torch.lerp(old[len(old) - overlap :], new[:overlap], share), new[overlap:]])
        for old, new in ((before.pixels, window.pixels), (before.edited, window.edited))
    )
    return WindowEdit(window.latents, pixels, edited)


def sparse_context(window: Window, sequence: TokenSequence, options: Options) -> SparseContext | None:
    """Which of its tokens are left out, if any are to be; none where the result is no edit of one medium."""
    plan = window.plan
    if options.shortcuts.context_tokens == 1 or plan.source is None or plan.edited is None:
        return None
    masks = [clip for name, clip in window.clips.items() if name.startswith("mask")]
    mask = masks[0] if masks else None
    return SparseContext(options.shortcuts, sequence, plan.source, options.inference.steps, mask)
