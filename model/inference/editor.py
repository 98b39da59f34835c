"""The trained editor: an instruction and media in, edited media out.

`Editor.from_pretrained(path)`, then `editor("<video1> Remove the dog.", video1="in.mp4")`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from model.config import InferenceConfig, ModelConfig, Size, build_part, fitted_size, load_config
from model.encoders import Codec, TextEncoder
from model.extras.config import ExtrasConfig
from model.extras.detail_transfer import blend, change_map, limit_to_mask
from model.inference.bundled import CONFIG, is_pipeline
from model.inference.diffusers_export import export_diffusers
from model.inference.diffusers_folder import load_pipeline, read_pipeline
from model.inference.hub import check_repository, files_to_publish, push
from model.inference.instruction import Instruction
from model.inference.lora import check_adapter, merge_adapter
from model.inference.model_card import ModelCard, card_of_model
from model.inference.pretrained import (
    WEIGHTS,
    find_adapter,
    find_checkpoint,
    read_weights,
    weight_shapes,
    write_weights,
)
from model.inference.request import Request, plan_request, windows
from model.inference.sampler import check_finite, sample
from model.inference.two_pass import masked_request, region_of, region_request
from model.net.families import build_transformer
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from model.rng import keyed
from model.sequence.interleave import (
    SequenceError,
    TokenSequence,
    build_sequence,
    interleave,
    texts_of,
    unpatchify,
)
from model.sequence.pixels import to_float
from shards.errors import ConfigError
from shards.files import write_json
from shards.media import resize, write_image, write_video
from shards.serialization import to_dict

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Edit:
    """What an edit made.

    Attributes:
        frames: uint8 RGB [T, H, W, 3]; an image has one frame.
        fps: frames per second.
        still: it is an image.
        raw: the decoded edit before detail carry-over, where that was on; else the same as `frames`.
        region: bool [T, H, W], where the model meant to edit, if it was asked (`ground`); None otherwise.
    """

    frames: np.ndarray
    fps: float
    still: bool
    raw: np.ndarray
    region: np.ndarray | None = None

    def describe(self) -> str:
        """Length, size and rate in words, and how much was marked where a region was asked for."""
        length, height, width = self.frames.shape[:3]
        size = f"{width}x{height}"
        words = f"image · {size}"
        if not self.still:
            words = f"{length} frames · {size} · {self.fps:g} fps · {length / self.fps:.2f} s"
        if self.region is None:
            return words
        if not self.region.any():
            return f"{words} · no region marked, so edited by words alone"
        return f"{words} · region of {self.region.mean():.1%} marked"

    def save(self, path: str | Path) -> Path:
        """Write an mp4 (H.264) or, for an image, a PNG; whole or not at all.

        H.264 as browsers play it has even sides: an odd one gains a row or column, repeated from the last.
        """
        path = Path(path)
        if self.still:
            write_image(path, self.frames[0])
        else:
            _, height, width, _ = self.frames.shape
            odd = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
            write_video(path, np.pad(self.frames, odd, mode="edge"), self.fps)
        return path


class Editor:
    """A transformer with its encoders, ready to edit. Make one with `from_pretrained`."""

    def __init__(
        self,
        dit: Transformer,
        config: ModelConfig,
        vae: Codec | None = None,
        text_encoder: TextEncoder | None = None,
    ):
        self.dit, self.config = dit, config
        self.vae: Codec = (vae or build_part(config.vae, Codec, "config.vae")).to(self.device)
        text_encoder = text_encoder or build_part(config.text_encoder, TextEncoder, "config.text_encoder")
        self.text_encoder: TextEncoder = text_encoder.to(self.device)
        wanted = self.vae.channels * config.sequence.patch**2, self.text_encoder.width
        takes = config.network
        if (takes.vision_dim, takes.text_dim) != wanted:
            raise ConfigError(
                f"config: dit takes vision_dim {takes.vision_dim} and text_dim {takes.text_dim}, "
                f"the encoders give {wanted[0]} and {wanted[1]}"
            )

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.dit.device

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        revision: str | None = None,
        lora: str | Path | None = None,
    ) -> Self:
        """Load a folder with `config.json` and `model.safetensors`, shipped weights, or a hub repository.

        Args:
            path: the folder, the name of weights that come with this package, or `owner/name` on the model
                hub; `revision` is a branch, tag or commit there.
            device, dtype: of the transformer; None keeps the dtype of the file, except that float16 becomes
                float32 on a CPU, which computes it slowly and badly.
            lora: an adapter that is merged into the weights: its folder, or that of the run that trained it,
                or `owner/name` on the model hub, or for Wan's family a safetensors file; see
                `model.inference.lora`.

        Raises:
            ConfigError: a file is missing, damaged, or not of this model, or asks for more than
                `shards.limits` allows; a pickle is never read.
        """
        folder = find_checkpoint(path, revision)
        if is_pipeline(folder):
            return cls(*_loaded_pipeline(folder, device, dtype, lora, str(path)))
        config = load_config(folder / CONFIG)
        shapes = weight_shapes(config.network, config.extras)
        adapter = lora and check_adapter(find_adapter(lora), config.network, config.extras, str(path))
        state = read_weights(
            folder / WEIGHTS, shapes, str(folder / CONFIG), device
        )  # before the transformer is built: a configuration that asks for too much does not fit its weights
        with torch.device("meta"):
            dit = build_transformer(config.network, config.extras)
        dit.load_state_dict(state, assign=True)
        if dtype is None and dit.dtype == torch.float16 and dit.device.type == "cpu":
            dtype = "float32"
        if dtype is not None:
            dit.to(getattr(torch, dtype))
            for name, weight in dit.named_parameters():
                if not torch.isfinite(weight).all():
                    raise ConfigError(
                        f"{folder / WEIGHTS}: weight {name!r} overflows in {dtype}; use float32 or bfloat16"
                    )
        if adapter:
            merge_adapter(dit, adapter)
        return cls(dit.eval().requires_grad_(False), config)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write `config.json` and `model.safetensors`, each whole or not at all; the weights come last."""
        folder = Path(path)
        write_json(folder / CONFIG, to_dict(self.config))
        write_weights(folder / WEIGHTS, self.dit.state_dict())
        return folder

    def push_to_hub(self, repository: str, private: bool = False, card: ModelCard | None = None) -> str:
        """Send the model to the model hub, with a card, and return the commit's address.

        Wan's family goes there as a pipeline in diffusers' layout. `python -m model push` sends what a run
        has written, with a card that is filled from it.

        Args:
            repository: `owner/name`; it is made if it is not there.
            private: of a repository that is made.
            card: what the page says; sizes alone when None, see `model.training.run_card.run_card`.

        Raises:
            ConfigError: the model's configuration names folders of this machine, nobody is logged in, or the
                hub or the network refuses.
        """
        check_repository(repository)
        with tempfile.TemporaryDirectory() as folder:
            wan = isinstance(self.config.network, WanConfig)
            out = export_diffusers(self, Path(folder) / "model") if wan else self.save_pretrained(folder)
            page = (card or card_of_model(self.config)).render(repository)
            return push(repository, files_to_publish(out), page, private)

    @overload
    def __call__(self, text: str | Instruction, **options: Any) -> Edit: ...

    @overload
    def __call__(self, text: list[str] | list[Instruction], **options: Any) -> list[Edit]: ...

    @torch.inference_mode()
    def __call__(
        self,
        text: str | Instruction | list[str] | list[Instruction],
        *,
        size: Size | Literal["model"] | None = None,
        frames: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        video_guidance: float | None = None,
        image_guidance: float | None = None,
        seed: int = 0,
        carry: bool | None = None,
        ground: bool = False,
        target: str | None = None,
        progress: Progress | bool | None = None,
        **media: Any,
    ) -> Edit | list[Edit]:
        """Edit or generate.

        Args:
            text: instruction with tags, e.g. `<video1> Remove the dog.`; the result's tag (here `<video2>`)
                is appended when the text names nothing but the media given. The only tag that may lack its
                media is the one that the text ends in. A list of texts gives a list of results, and every
                medium is then a list as long, None where a text has no such medium; all are checked before
                the first is run. An `Instruction` is a text that `check_instruction` read before.
            size: (height, width) of the result, sides dividing into tokens; the first video's or image's own
                when None; "model" for the size that the model works at. The model works at the nearest size
                that its preset allows, and the result is resized from there.
            frames: length of the result; the first video's by default, 1 where only images are given.
            fps: of the result; the first video's by default.
            steps, guidance, solver, video_guidance, image_guidance: the checkpoint's defaults when None, see
                `InferenceConfig`.
            seed: the same seed gives the same result on the same machine.
            carry: transfer of the source's details (`extras.detail_transfer`) on or off; the checkpoint's
                default when None.
            ground: first have the model mark the region that the words are about, then edit within it, see
                `model.inference.two_pass`; for edits of one video or image by words. Where it marks nothing,
                the edit is by words alone.
            target: the tag that is generated, e.g. "video2", where the text does not end in it.
            progress: called with (solver steps done, all of them); True draws a bar.
            **media: `video1=...`, `image1=...`, `mask=...`; see `inputs.load_media` for what is taken.

        Raises:
            SequenceError: text and media disagree, or a value is out of range; shards.media.MediaError: an
                unreadable file. Nothing heavy has been done by then.
            NotFiniteError: the network or the codec gave values that are no numbers; nothing is made of them.
        """
        single = isinstance(text, str | Instruction)
        texts: list[str | Instruction] = [text] if isinstance(text, str | Instruction) else [*text]
        items = [media] if single else split_media(len(texts), media)
        inference = self._inference(
            steps=steps,
            guidance=guidance,
            solver=solver,
            video_guidance=video_guidance,
            image_guidance=image_guidance,
        )
        extras = self._extras(carry)
        plans = [
            plan_request(t, m, self.config.media, self.multiple, size, frames, fps, target)
            for t, m in zip(texts, items, strict=True)
        ]
        regions = [region_request(plan) if ground else None for plan in plans]
        most = self.config.media.frames
        passes = sum(len(windows(plan.length, most)) for plan in plans) * (2 if ground else 1)
        with ticking(progress, inference.steps * passes) as tick:
            edits = [
                self._edit(plan, inference, extras, seed, tick)
                if region is None
                else self._grounded(plan, region, inference, extras, seed, tick)
                for plan, region in zip(plans, regions, strict=True)
            ]
        return edits[0] if single else edits

    def _inference(self, **changes: Any) -> InferenceConfig:
        """The checkpoint's defaults with what the caller chose; SequenceError for values out of range."""
        given = {name: value for name, value in changes.items() if value is not None}
        try:
            return dataclasses.replace(self.config.inference, **given)
        except ValueError as error:
            raise SequenceError(str(error)) from error

    def _extras(self, carry: bool | None) -> ExtrasConfig:
        """The checkpoint's extras, with or without the transfer of details if the caller says."""
        if carry is None:
            return self.config.extras
        try:
            return dataclasses.replace(self.config.extras, detail_transfer=carry)
        except ValueError as error:
            raise SequenceError(str(error)) from error

    def _grounded(
        self,
        plan: Request,
        asked: Request,
        inference: InferenceConfig,
        extras: ExtrasConfig,
        seed: int,
        tick: Callable[[], None],
    ) -> Edit:
        region = region_of(self._edit(asked, inference, extras, seed, tick).frames)
        chosen = masked_request(plan, region) if region.any() else plan
        return dataclasses.replace(self._edit(chosen, inference, extras, seed, tick), region=region)

    def _edit(
        self,
        plan: Request,
        inference: InferenceConfig,
        extras: ExtrasConfig,
        seed: int,
        tick: Callable[[], None],
    ) -> Edit:
        """Window by window."""
        states = self._states(plan)
        result = np.zeros((plan.length, *plan.size, 3), np.uint8)
        followed = plan.source if extras.detail_transfer else None
        if followed is not None and plan.clips[followed].still != plan.still:
            followed = None  # a picture is not where a video's detail comes from
        raw = result if followed is None else np.zeros_like(result)
        for start in windows(plan.length, self.config.media.frames):
            stop = min(start + self.config.media.frames, plan.length)
            pieces = {n: c.frames if c.still else c.frames[start:stop] for n, c in plan.clips.items()}
            edit, edited = self._window(
                plan, pieces, states, stop - start, inference, extras, seed, tick, followed
            )
            raw[start:stop] = resize(to_pixels(edit), plan.size)
            if followed is not None:
                source = to_float(resize(pieces[followed], plan.size))
                result[start:stop] = to_pixels(blend(to_float(raw[start:stop]), source, edited))
        return Edit(result, plan.fps, plan.still, raw)

    def _states(self, plan: Request) -> dict[str, Tensor]:
        """Token states of the instruction's phrases, encoded together."""
        phrases = list(dict.fromkeys(texts_of(plan.instruction.parts, self.config.sequence.apart)))
        return dict(zip(phrases, (x.to(self.device) for x in self.text_encoder.encode(phrases)), strict=True))

    def _window(
        self,
        plan: Request,
        pieces: dict[str, np.ndarray],
        states: dict[str, Tensor],
        frames: int,
        inference: InferenceConfig,
        extras: ExtrasConfig,
        seed: int,
        tick: Callable[[], None],
        followed: str | None,
    ) -> tuple[Tensor, Tensor]:
        """One window at the model's size: float [T, h, w, 3] in [-1, 1], and its change map [T, h, w, 1].

        The map is against the element `followed`; 1 everywhere without one.
        """
        shape = (frames, *plan.work)
        videos = {name: to_float(self._fit(piece)).to(self.device) for name, piece in pieces.items()}
        latents = {name: self.vae.encode(video).to(self.device) for name, video in videos.items()}
        for name, value in latents.items():
            check_finite(value, f"the latents of <{name}>", "the codec's settings or weights are damaged")
        latents[plan.target] = torch.zeros(
            *self.vae.latent_size(*shape), self.vae.channels, device=self.device
        )
        with_text, without_text = (self._sequence(plan, latents, states, drop) for drop in (False, True))
        fewer = self._with_fewer_sources(plan, latents, states, inference)
        count = torch.Size(with_text.target.size).numel()
        noise = torch.randn(count, self.config.network.vision_dim, generator=keyed("edit", seed))
        tokens = sample(self.dit, with_text, without_text, noise, self.config.flow, inference, tick, fewer)
        made = unpatchify(tokens, with_text.target.size, self.config.sequence.patch)
        edit = self.vae.decode(made, shape)
        check_finite(edit, "the decoded pixels", "the codec's settings or weights are damaged")
        edit = edit.clamp(-1, 1)
        if followed is None or videos[followed].shape != edit.shape:
            return edit.cpu(), torch.ones(*shape, 1)
        coded = self.vae.decode(latents[followed], shape).clamp(-1, 1)
        edited = change_map(edit, coded, extras.blend_low, extras.blend_high)
        for name, video in videos.items():
            if name.startswith("mask") and video.shape[1:] == edit.shape[1:]:
                edited = limit_to_mask(edited, video)
                break
        return edit.cpu(), edited.cpu()

    def _sequence(
        self,
        plan: Request,
        latents: dict[str, Tensor],
        states: dict[str, Tensor],
        drop: bool,
        gone: Collection[str] = (),
    ) -> TokenSequence:
        """The request's tokens, without its text if `drop`, and without the sources `gone`."""
        layout = self.config.sequence
        elements = interleave(
            [part for part in plan.instruction.parts if part[0] == "text" or part[1] not in gone],
            {name: value for name, value in latents.items() if name not in gone},
            plan.target,
            states.__getitem__,
            drop_text=drop,
            apart=layout.apart,
        )
        return build_sequence(elements, layout, self.vae.spatial)

    def _with_fewer_sources(
        self,
        plan: Request,
        latents: dict[str, Tensor],
        states: dict[str, Tensor],
        inference: InferenceConfig,
    ) -> list[tuple[TokenSequence, float]]:
        """Links of the guidance on sources: without any, then with the videos (and masks), see `sample`."""
        images = {name for name in plan.instruction.inputs if name.startswith("image")}
        videos = set(plan.instruction.inputs) - images
        links: list[tuple[set[str], float]] = []
        if images and inference.image_guidance != 1:
            links.append((images, inference.image_guidance))
        if videos and inference.video_guidance != 1:
            links.insert(0, (images | videos, inference.video_guidance))
        return [(self._sequence(plan, latents, states, True, gone), scale) for gone, scale in links]

    def _fit(self, frames: np.ndarray) -> np.ndarray:
        """A medium at the model's size."""
        height, width = frames.shape[1:3]
        return resize(frames, fitted_size(height, width, self.config.media, self.multiple))

    @property
    def multiple(self) -> int:
        """Pixels per token along height and width."""
        return self.vae.spatial * self.config.sequence.patch


def _loaded_pipeline(
    folder: Path, device: str | torch.device, dtype: str | None, lora: str | Path | None, name: str
) -> tuple[Transformer, ModelConfig]:
    """A pipeline's transformer, with the adapter merged if any; one that does not fit is refused first."""
    adapter = lora and check_adapter(find_adapter(lora), read_pipeline(folder).network, base=name)
    transformer, config = load_pipeline(folder, device, dtype)
    if adapter:
        merge_adapter(transformer, adapter)
    return transformer.eval(), config


def split_media(count: int, media: dict[str, Any]) -> list[dict[str, Any]]:
    """One dictionary of media for each of `count` texts; SequenceError names a medium of another length."""
    if not count:
        raise SequenceError("text: the list is empty")
    for name, values in media.items():
        if values is not None and (not isinstance(values, list) or len(values) != count):
            given = f"{len(values)} values" if isinstance(values, list) else type(values).__name__
            raise SequenceError(f"{name}: {count} texts need a list of {count} media, got {given}")
    return [{n: v[i] for n, v in media.items() if v is not None} for i in range(count)]


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


def to_pixels(video: Tensor) -> np.ndarray:
    """Float [-1, 1] -> uint8."""
    pixels: np.ndarray = ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    return pixels
