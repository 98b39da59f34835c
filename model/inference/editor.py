"""The trained editor: an instruction and media in, edited media out.

`Editor.from_pretrained(path)`, then `editor("<video1> Remove the dog.", video1="in.mp4")`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
import torch

from model.acceleration.config import NO_SHORTCUTS, Shortcuts
from model.acceleration.sparse_sampling import check_context
from model.config import InferenceConfig, ModelConfig, Size, build_part
from model.encoders import Codec, TextEncoder
from model.extras.compositing import composite
from model.extras.config import ExtrasConfig
from model.inference.bundled import is_pipeline
from model.inference.checkpoint import describe_checkpoint, load_checkpoint, save_checkpoint
from model.inference.diffusers_export import export_diffusers
from model.inference.diffusers_folder import load_pipeline
from model.inference.edit import Edit
from model.inference.enhance import Enhancer, enhance_request
from model.inference.hub import check_repository, files_to_publish, push
from model.inference.instruction import Instruction
from model.inference.lora import check_adapter, merge_adapter
from model.inference.model_card import ModelCard, card_of_model
from model.inference.offload import Offload
from model.inference.pretrained import find_adapter, find_checkpoint
from model.inference.request import Request, check_guidance, pixels_per_token, plan_request, windows
from model.inference.two_pass import masked_request, region_of, region_request
from model.inference.window import Options, Window, WindowEditor
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from model.sequence.interleave import SequenceError
from model.sequence.pixels import to_pixels
from shards.errors import ConfigError
from shards.media import resize

Progress = Callable[[int, int], None]


class Editor:
    """A transformer with its encoders, ready to edit. Make one with `from_pretrained`."""

    def __init__(
        self,
        dit: Transformer,
        config: ModelConfig,
        vae: Codec | None = None,
        text_encoder: TextEncoder | None = None,
        offload: torch.device | Offload | None = None,
    ):
        """Put parts together; ConfigError where they do not fit each other.

        Args:
            vae, text_encoder: those of the configuration when None.
            offload: the device that parts come to one at a time, or how they do; None has all of them
                where the transformer is.
        """
        self.dit, self.config = dit, config
        self.offload = Offload(offload, dit) if isinstance(offload, torch.device) else offload
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
        """Where the transformer is; with offloading, where it comes to."""
        return self.dit.device if self.offload is None else self.offload.device

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        revision: str | None = None,
        lora: str | Path | None = None,
        offload: bool = False,
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
            offload: have the encoders' and transformers' weights on the device one at a time; what each takes
                is logged before any is read. On a CPU the encoders alone make room.

        Raises:
            ConfigError: a file is missing, damaged, or not of this model, or asks for more than
                `shards.limits` allows or than there is memory; a pickle is never read.
        """
        folder, device = find_checkpoint(path, revision), torch.device(device)
        read = load_pipeline if is_pipeline(folder) else load_checkpoint
        adapter = None
        if lora is not None:  # one that does not fit is refused before anything heavy
            config = describe_checkpoint(folder)
            adapter = check_adapter(find_adapter(lora), config.network, config.extras, str(path))
        transformer, config = read(folder, device, dtype, offload)
        if adapter is not None:
            merge_adapter(transformer, adapter)
        transformer.eval().requires_grad_(False)
        return cls(transformer, config, offload=device if offload else None)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write `config.json` and `model.safetensors`, each whole or not at all; the weights come last."""
        folder = Path(path)
        save_checkpoint(self.dit, self.config, folder)
        return folder

    def push_to_hub(self, repository: str, private: bool = False, card: ModelCard | None = None) -> str:
        """Send the model to the model hub, with a card, and return the commit's address.

        Wan's family goes there as a pipeline in diffusers' layout, unless text is among its tokens.
        `python -m model push` sends what a run has written, with a card that is filled from it.

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
            network = self.config.network
            pipeline = isinstance(network, WanConfig) and not network.words
            out = export_diffusers(self, Path(folder) / "model") if pipeline else self.save_pretrained(folder)
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
        frames: int | tuple[int, int] | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        video_guidance: float | None = None,
        image_guidance: float | None = None,
        negative: str | None = None,
        seed: int = 0,
        carry: bool | None = None,
        ground: bool = False,
        target: str | None = None,
        enhance: Enhancer | None = None,
        shortcuts: Shortcuts | None = None,
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
            frames: length of the result; the first video's by default, 1 where only images are given. A pair
                takes the frames from the first number to before the second one of the first video, and of
                masks that are as long as it is. Published weights take 1 + 4 k frames: a source of another
                length is filled up with its last frame and the result cut back, another length that is no
                source's is refused.
            fps: of the result; the first video's by default.
            steps, guidance, solver, video_guidance, image_guidance, negative: the checkpoint's defaults when
                None, see `InferenceConfig`.
            seed: the same seed gives the same result on the same machine.
            carry: transfer of the source's details (`extras.detail_transfer`) on or off; the checkpoint's
                default when None.
            ground: first have the model mark the region that the words are about, then edit within it, see
                `model.inference.two_pass`; for edits of one video or image by words. Where it marks nothing,
                the edit is by words alone.
            target: the tag that is generated, e.g. "video2", where the text does not end in it.
            enhance: has the words rewritten in detail, see `model.inference.enhance`; it is called after all
                checks, with the media and a question.
            shortcuts: what of the network's work is left out; nothing when None.
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
            negative=negative,
        )
        plans = [
            plan_request(t, m, self.config, self.vae, size, frames, fps, target)
            for t, m in zip(texts, items, strict=True)
        ]
        check_guidance(plans, inference, self.config)
        shortcuts = shortcuts or NO_SHORTCUTS
        for plan in plans:
            masked = ground or any(name.startswith("mask") for name in plan.clips)
            check_context(shortcuts, plan.edited is not None, masked, inference.steps)
        regions = [region_request(plan) if ground else None for plan in plans]
        if enhance is not None:
            plans = [enhance_request(p, enhance, self.config.sequence.system_prompt) for p in plans]
        most = self.config.media.frames
        passes = sum(len(windows(plan.length, most)) for plan in plans) * (2 if ground else 1)
        extras = self._extras(carry)
        with ticking(progress, inference.steps * passes) as tick:
            options = Options(inference, extras, shortcuts, seed, tick)
            edits = [
                self._edit(plan, options) if region is None else self._grounded(plan, region, options)
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

    def _grounded(self, plan: Request, asked: Request, options: Options) -> Edit:
        region = region_of(self._edit(asked, options).frames)
        chosen = masked_request(plan, region) if region.any() else plan
        return dataclasses.replace(self._edit(chosen, options), region=region)

    def _edit(self, plan: Request, options: Options) -> Edit:
        """Window by window."""
        parts = WindowEditor(self.dit, self.vae, self.text_encoder, self.config, self.device, self.offload)
        states = parts.encode_texts(plan, options.inference)
        result = np.zeros((plan.length, *plan.size, 3), np.uint8)
        followed = plan.source if options.extras.detail_transfer else None
        if followed is not None and plan.clips[followed].still != plan.still:
            followed = None  # a picture is not where a video's detail comes from
        raw = result if followed is None else np.zeros_like(result)
        change = None if followed is None else np.zeros(result.shape[:3], bool)
        for start in windows(plan.length, self.config.media.frames):
            stop = min(start + self.config.media.frames, plan.length)
            clips = {n: c.frames if c.still else c.frames[start:stop] for n, c in plan.clips.items()}
            edit, edited = parts.edit(Window(plan, clips, stop - start, states, followed), options)
            raw[start:stop] = resize(to_pixels(edit), plan.size)
            if followed is not None and change is not None:
                result[start:stop], change[start:stop] = composite(raw[start:stop], clips[followed], edited)
        return Edit(
            result,
            plan.fps,
            plan.still,
            raw,
            rewritten=plan.rewritten,
            origin=plan.origin,
            notes=plan.notes,
            change=change,
            source=plan.edited,
        )

    @property
    def multiple(self) -> int:
        """Pixels per token along height and width."""
        return pixels_per_token(self.config, self.vae)


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
