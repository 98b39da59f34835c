"""The trained editor: an instruction and media in, edited media out.

`Editor.from_pretrained(path)`, then `editor("<video1> Remove the dog.", video1="in.mp4")`.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, Literal, Self, overload

import torch

from model.acceleration.config import NO_SHORTCUTS, Shortcuts
from model.acceleration.sequence_parallel import SequenceGroup, group_of_world
from model.acceleration.sparse_sampling import check_context
from model.config import InferenceConfig, ModelConfig, Size, build_part
from model.encoders import Codec, TextEncoder
from model.encoders.wan import WanVAE
from model.extras.config import ExtrasConfig
from model.extras.faces import FacePolicy, choose_faces, policy_for
from model.extras.keeping import Keep, choose_keep
from model.inference.bundled import is_pipeline
from model.inference.checkpoint import describe_checkpoint, load_checkpoint, save_checkpoint
from model.inference.diffusers_export import export_diffusers
from model.inference.diffusers_folder import load_pipeline
from model.inference.edit import Edit
from model.inference.edit_runner import EditRunner, Progress, ticking
from model.inference.edit_stream import (
    EditStream,
    FinishedWindow,
    PlannedEdit,
    check_held,
    collect,
    settings_of,
)
from model.inference.enhance import Enhancer, enhance_request
from model.inference.forecast import forecast
from model.inference.hub import check_repository, files_to_publish, push
from model.inference.instruction import Instruction
from model.inference.lora import check_adapter, merge_adapter
from model.inference.model_card import ModelCard, card_of_model
from model.inference.offload import Offload
from model.inference.pretrained import find_adapter, find_checkpoint
from model.inference.request import (
    Request,
    check_guidance,
    check_kept,
    pixels_per_token,
    plan_request,
    split_media,
    windows_of,
)
from model.inference.two_pass import region_request
from model.inference.window import Options, Preview, TextStates, WindowEditor
from model.net.distributed import World
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from model.sequence.interleave import SequenceError
from model.streaming.journal import Journal
from shards.errors import ConfigError


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
        self.group: SequenceGroup | None = None
        self._texts: dict[Hashable, TextStates] = {}
        self.offload = Offload(offload, dit) if isinstance(offload, torch.device) else offload
        self.vae: Codec = (vae or build_part(config.vae, Codec, "config.vae")).to(self.device)
        if vae is None and isinstance(self.vae, WanVAE) and not self.vae.tiling:
            self.vae.tiling = "auto"
        text_encoder = text_encoder or build_part(config.text_encoder, TextEncoder, "config.text_encoder")
        self.text_encoder: TextEncoder = text_encoder.to(self.device)
        wanted = self.vae.channels * config.sequence.patch**2, self.text_encoder.width
        takes = config.network
        if (takes.vision_dim, takes.text_dim) != wanted:
            raise ConfigError(
                f"config: dit takes vision_dim {takes.vision_dim} and text_dim {takes.text_dim}, "
                f"the encoders give {wanted[0]} and {wanted[1]}"
            )

    def share(self, world: World) -> None:
        """Make every edit from now on together with the other processes of a run.

        All make the same calls with the same media, and get the same results, but for progress and files:
        the first one alone gives `Editor.stream` the `out` that it goes on from.

        Raises:
            SettingError: they cannot, or the network cannot; see `group_of_world`.
        """
        self.group = group_of_world(world, self.dit, bool(self.config.extras.copy_bias))

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
        interval: tuple[float, float] | None = None,
        seed: int = 0,
        carry: bool | None = None,
        keep: float | None = None,
        keep_faces: bool | None = None,
        ground: bool = False,
        target: str | None = None,
        enhance: Enhancer | None = None,
        shortcuts: Shortcuts | None = None,
        progress: Progress | bool | None = None,
        preview: Preview | None = None,
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
            steps, guidance, solver, video_guidance, image_guidance, negative, interval: the checkpoint's
                defaults when None, see `InferenceConfig`.
            seed: the same seed gives the same result on the same machine.
            carry: transfer of the source's details (`extras.detail_transfer`) on or off; the checkpoint's
                default when None.
            keep: how much of the source is kept outside of the edit, from 0 (nothing) to 1 (its pixels, to
                the bit), see `extras.keeping.Keep`; of any model. Outside is beyond the mask of the text, or
                the region of `ground`, or else what the edit changed, and a soft rim. None leaves it to
                `carry`; with 0 that is off. The result then has its `mask`.
            keep_faces: keep all faces of the source that are found, or none. By default those that the edit
                is not about, see `extras.faces`; with `keep` or `carry` off, none.
            ground: first have the model mark the region that the words are about, then edit within it, see
                `model.inference.two_pass`; for edits of one video or image by words. Where it marks nothing,
                the edit is by words alone.
            target: the tag that is generated, e.g. "video2", where the text does not end in it.
            enhance: has the words rewritten in detail, see `model.inference.enhance`; it is called after all
                checks, with the media and a question.
            shortcuts: what of the network's work is left out; nothing when None.
            progress: called with (solver steps done, all of them); True draws a bar.
            preview: called after every step with a function that decodes what there is so far, see
                `model.inference.window.Preview`.
            **media: `video1=...`, `image1=...`, `mask=...`; see `inputs.load_media` for what is taken.

        Raises:
            SequenceError: text and media disagree, or a value is out of range; shards.media.MediaError: an
                unreadable file. Nothing heavy has been done by then.
            NotFiniteError: the network or the codec gave values that are no numbers; nothing is made of them.
        """
        single = isinstance(text, str | Instruction)
        texts: list[str | Instruction] = [text] if isinstance(text, str | Instruction) else [*text]
        items = [media] if single else split_media(len(texts), media)
        kept, carry = choose_keep(keep, carry)
        inference = self._inference(
            steps=steps,
            guidance=guidance,
            solver=solver,
            video_guidance=video_guidance,
            image_guidance=image_guidance,
            negative=negative,
            interval=interval,
        )
        plans = [
            plan_request(t, m, self.config, self.vae, size, frames, fps, target)
            for t, m in zip(texts, items, strict=True)
        ]
        for plan in plans:
            check_held(plan)
        shortcuts = shortcuts or NO_SHORTCUTS
        faces = choose_faces(keep_faces, keep, carry)
        jobs = self._jobs(plans, inference, ground, enhance, kept, faces, shortcuts)
        extras = self._extras(carry)
        with ticking(progress, inference.steps * sum(job.passes for job in jobs)) as tick:
            options = Options(inference, extras, shortcuts, seed, tick, kept, preview=preview)
            runner = self._runner
            made = runner.sample_together(jobs, options)
            edits = [
                collect(job, runner.windows(job, options, made=latents))
                for job, latents in zip(jobs, made, strict=True)
            ]
        return edits[0] if single else edits

    def stream(
        self,
        text: str | Instruction,
        *,
        out: str | Path | None = None,
        size: Size | Literal["model"] | None = None,
        frames: int | tuple[int, int] | None = None,
        fps: float | None = None,
        carry: bool | None = None,
        keep: float | None = None,
        keep_faces: bool | None = None,
        ground: bool = False,
        target: str | None = None,
        enhance: Enhancer | None = None,
        seed: int = 0,
        shortcuts: Shortcuts | None = None,
        progress: Progress | bool | None = None,
        announce: Callable[[str], None] | None = None,
        **rest: Any,
    ) -> EditStream:
        """Edit one video window by window, in memory that does not grow with its length.

        `with editor.stream(...) as stream: stream.write("out.mp4")`, or take the windows one by one.

        Args:
            text: one instruction; its settings and media are those of a call of the editor.
            out: where the result will be written; a clip of several windows then keeps those that are
                finished in `<out>.parts`, until the stream is taken to its end, and goes on from those that
                an interrupted edit with the same settings has left there.
            announce: told what an edit of several windows will take, before the video is read for its cuts.
            **rest: steps, guidance, solver, video_guidance, image_guidance, negative, interval, and media.

        Raises:
            SequenceError, shards.media.MediaError, NotFiniteError: as a call of the editor.
            shards.errors.SettingError: `<out>.parts` holds windows of an edit with other settings.
        """
        kept, carry = choose_keep(keep, carry)
        names = {f.name for f in dataclasses.fields(InferenceConfig)}
        inference = self._inference(**{n: v for n, v in rest.items() if n in names})
        media = {n: v for n, v in rest.items() if n not in names}
        plan = plan_request(text, media, self.config, self.vae, size, frames, fps, target)
        shortcuts = shortcuts or NO_SHORTCUTS
        faces = choose_faces(keep_faces, keep, carry)
        place = None if out is None else Path(out)
        line = forecast(plan, self.config, self.vae, place, passes=2 if ground else 1)
        if line is not None and announce is not None:
            announce(line)
        bar = progress is True
        (job,) = self._jobs([plan], inference, ground, enhance, kept, faces, shortcuts, bar)
        extras = self._extras(carry)
        journal = None
        if place is not None and len(job.spans) > 1:
            choices = {"inference": inference, "shortcuts": shortcuts, "seed": seed}
            journal = Journal(place, settings_of(job, self.dit, self.config, choices))

        def windows() -> Iterator[FinishedWindow]:
            with ticking(progress, inference.steps * job.passes) as tick:
                options = Options(inference, extras, shortcuts, seed, tick, kept)
                yield from self._runner.windows(job, options, journal)

        return EditStream(job, windows(), journal, kept)

    def _jobs(
        self,
        plans: list[Request],
        inference: InferenceConfig,
        ground: bool,
        enhance: Enhancer | None,
        keep: Keep | None,
        faces: FacePolicy,
        shortcuts: Shortcuts,
        bar: bool = False,
    ) -> list[PlannedEdit]:
        """Requests with the windows that they are edited in; SequenceError where the model cannot."""
        check_guidance(plans, inference, self.config)
        for plan in plans:
            masked = ground or any(name.startswith("mask") for name in plan.clips)
            check_context(shortcuts, plan.edited is not None, masked, inference.steps)
        if self.group is not None and (enhance is not None or shortcuts.context_tokens < 1):
            what = "enhance" if enhance is not None else "shortcuts.context_tokens"
            raise SequenceError(f"{what}: cannot be shared by several processes; start one")
        if keep is not None or faces is FacePolicy.ALL:
            check_kept(plans)
        regions = [region_request(plan) if ground else None for plan in plans]
        # by the words that were asked with, not by those that a language model makes of them
        policies = [policy_for(p.instruction.words, faces, p.edited is not None) for p in plans]
        if enhance is not None:
            plans = [enhance_request(p, enhance, self.config.sequence.system_prompt) for p in plans]
        return [
            PlannedEdit(plan, region, windows_of(plan, self.config, self.vae, bar), policy)
            for plan, region, policy in zip(plans, regions, policies, strict=True)
        ]

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

    @property
    def _runner(self) -> EditRunner:
        """The parts as they are now."""
        parts = WindowEditor(
            *(self.dit, self.vae, self.text_encoder, self.config, self.device, self.offload, self.group)
        )
        return EditRunner(parts, self._texts)

    @property
    def multiple(self) -> int:
        """Pixels per token along height and width."""
        return pixels_per_token(self.config, self.vae)
