"""One window of an edit: texts and sources encoded, the target sampled and decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.acceleration.config import Shortcuts
from model.acceleration.sparse_sampling import SparseContext
from model.config import InferenceConfig, ModelConfig, fitted_size
from model.encoders import Codec, TextEncoder
from model.extras.config import ExtrasConfig
from model.extras.detail_transfer import change_map, limit_to_mask
from model.inference.offload import Offload
from model.inference.request import Request
from model.inference.sampler import check_finite, sample
from model.net.transformer import Transformer
from model.rng import keyed
from model.sequence.interleave import TokenSequence, build_sequence, interleave, texts_of, unpatchify
from model.sequence.pixels import to_float
from model.sequence.prompts import prompt_of
from shards.media import resize

DAMAGED = "the codec's settings or weights are damaged"


@dataclass(frozen=True)
class Options:
    """How an edit is made; `tick` is called after every solver step."""

    inference: InferenceConfig
    extras: ExtrasConfig
    shortcuts: Shortcuts
    seed: int
    tick: Callable[[], None]


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
        clips: uint8 [T, H, W, 3], the media of this window.
        frames: its length.
        states: of the request's texts, see `WindowEditor.encode_texts`.
        followed: name of the source whose details the result takes, if any.
    """

    plan: Request
    clips: dict[str, np.ndarray]
    frames: int
    states: TextStates
    followed: str | None


@dataclass(frozen=True)
class WindowEditor:
    """An editor's parts at work; with `offload`, one at a time on the device."""

    dit: Transformer
    vae: Codec
    text_encoder: TextEncoder
    config: ModelConfig
    device: torch.device
    offload: Offload | None = None

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

    def edit(self, window: Window, options: Options) -> tuple[Tensor, Tensor]:
        """One window at the model's size: float [T, h, w, 3] in [-1, 1], and its change map [T, h, w, 1].

        The map is against the element `followed`; 1 everywhere without one.
        """
        plan, followed = window.plan, window.followed
        shape = (window.frames, *plan.work)
        videos = {
            name: to_float(self._fit(clip, plan, name)).to(self.device) for name, clip in window.clips.items()
        }
        self._use(self.vae)
        latents = {name: self.vae.encode(video).to(self.device) for name, video in videos.items()}
        for name, value in latents.items():
            check_finite(value, f"the latents of <{name}>", DAMAGED)
        made = self._sample(window, latents, options)
        self._use(self.vae)
        edit = self.vae.decode(made, shape)
        check_finite(edit, "the decoded pixels", DAMAGED)
        edit = edit.clamp(-1, 1)
        if followed is None or videos[followed].shape != edit.shape:
            return edit.cpu(), torch.ones(*shape, 1)
        coded = self.vae.decode(latents[followed], shape).clamp(-1, 1)
        edited = change_map(edit, coded, options.extras.blend_low, options.extras.blend_high)
        for name, video in videos.items():
            if name.startswith("mask") and video.shape[1:] == edit.shape[1:]:
                edited = limit_to_mask(edited, video)
                break
        return edit.cpu(), edited.cpu()

    def _sample(self, window: Window, sources: dict[str, Tensor], options: Options) -> Tensor:
        """Latents [t, h, w, C] of the target."""
        plan, inference = window.plan, options.inference
        t, *sides = self.vae.latent_size(window.frames, *plan.work)
        first = [] if plan.first_frame is None else [sources[plan.first_frame]]
        target = torch.zeros(t - len(first), *sides, self.vae.channels, device=self.device)
        latents = {**sources, plan.target: target}
        self._use(self.dit)
        with_text, without_text = (self._sequence(window, latents, drop) for drop in (False, True))
        fewer = self._with_fewer_sources(window, latents, inference)
        rows, columns = with_text.target.size[1:]
        noise = torch.randn(
            t * rows * columns, self.config.network.vision_dim, generator=keyed("edit", options.seed)
        )[len(first) * rows * columns :]
        flow = self.config.flow
        context = sparse_context(window, with_text, options)
        tokens = sample(
            self.dit, with_text, without_text, noise, flow, inference, options.tick, fewer, context
        )
        made = unpatchify(tokens, with_text.target.size, self.config.sequence.patch)
        return torch.cat([*first, made])

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


def sparse_context(window: Window, sequence: TokenSequence, options: Options) -> SparseContext | None:
    """Which of its tokens are left out, if any are to be; none where the result is no edit of one medium."""
    plan = window.plan
    if options.shortcuts.context_tokens == 1 or plan.source is None or plan.edited is None:
        return None
    masks = [clip for name, clip in window.clips.items() if name.startswith("mask")]
    mask = masks[0] if masks else None
    return SparseContext(options.shortcuts, sequence, plan.source, options.inference.steps, mask)
