"""The trained editor: an instruction and media in, edited media out.

`Editor.from_pretrained(path)`, then `editor("<video1> Remove the dog.", video1="in.mp4")`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from model.carry_over import carry_over
from model.config import ConfigError, ModelConfig, load_config, to_dict
from model.data import fitted_size, keyed, to_float
from model.dit import DiT
from model.encoders import Codec, TextEncoder, build
from model.flow import SOLVERS, guide, time_grid, to_velocity
from model.media_in import Clip, read_clip
from model.packing import PackedBatch, pack
from model.sequence import Segment, SequenceError, build_sequence, interleave, unpatchify

WEIGHTS, CONFIG = "model.safetensors", "config.json"
TAG = re.compile(r"<((?:video|image)[1-9][0-9]?|mask[0-9]{0,2})>")


@dataclass(frozen=True)
class Edit:
    """What an edit made.

    Attributes:
        frames: uint8 RGB [T, H, W, 3]; an image has one frame.
        fps: frames per second.
        still: it is an image.
        raw: the decoded edit before detail carry-over, where that was on; else the same as `frames`.
    """

    frames: np.ndarray
    fps: float
    still: bool
    raw: np.ndarray

    def save(self, path: str | Path) -> Path:
        """Write an mp4 (H.264) or, for an image, a PNG; whole or not at all."""
        from shards.media import write_image, write_video

        path = Path(path)
        if self.still:
            write_image(path, self.frames[0])
        else:
            write_video(path, self.frames, self.fps)
        return path


class Editor:
    """A transformer with its encoders, ready to edit. Make one with `from_pretrained`."""

    def __init__(
        self, dit: DiT, config: ModelConfig, codec: Codec | None = None, text: TextEncoder | None = None
    ):
        self.dit, self.config = dit, config
        self.codec: Codec = codec or build(config.codec)
        self.text: TextEncoder = text or build(config.text)
        wanted = self.codec.channels * config.sequence.patch**2, self.text.width
        if (config.dit.vision_dim, config.dit.text_dim) != wanted:
            raise ConfigError(
                f"config: dit takes vision_dim {config.dit.vision_dim} and text_dim {config.dit.text_dim}, "
                f"the encoders give {wanted[0]} and {wanted[1]}"
            )

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Load a folder with `config.json` and `model.safetensors`, or a finished run's folder.

        Raises:
            ConfigError: a file is missing, damaged, or not of this model; a pickle is never read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(path)
        if not (folder / CONFIG).is_file() and (folder / "checkpoint" / CONFIG).is_file():
            folder = folder / "checkpoint"
        config = load_config(folder / CONFIG)
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise ConfigError(f"{weights}: not found; a checkpoint folder holds {CONFIG} and {WEIGHTS}")
        try:
            state = load_file(weights, device=str(device))
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{weights}: {error}; is the file complete?") from error
        with torch.device("meta"):
            dit = DiT(config.dit)
        shapes = {name: value.shape for name, value in dit.state_dict().items()}
        for name in sorted(set(shapes) | set(state)):
            if name not in state or name not in shapes or state[name].shape != shapes[name]:
                raise ConfigError(f"{weights}: weight {name!r} does not fit {folder / CONFIG}")
            if not torch.isfinite(state[name]).all():
                raise ConfigError(f"{weights}: weight {name!r} holds values that are not finite")
        dit = DiT(config.dit).to(device)
        dit.load_state_dict(state)
        return cls(dit.eval().requires_grad_(False), config)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write `config.json` and `model.safetensors`, each whole or not at all; the weights come last."""
        from safetensors.torch import save

        from shards.files import write_bytes, write_json

        folder = Path(path)
        write_json(folder / CONFIG, to_dict(self.config))
        state = {name: value.detach().cpu().contiguous() for name, value in self.dit.state_dict().items()}
        write_bytes(folder / WEIGHTS, save(state, metadata={"format": "pt"}))
        return folder

    @torch.inference_mode()
    def __call__(
        self,
        text: str,
        *,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        carry: bool | None = None,
        progress: Callable[[int, int], None] | None = None,
        **media: Any,
    ) -> Edit:
        """Edit or generate.

        Args:
            text: instruction with tags, e.g. `<video1> Remove the dog.`; the result's tag (here `<video2>`)
                is appended when the text names nothing but the media given.
            size: (height, width) of the result; the first video's or image's by default. The model works at
                the nearest size that its preset allows.
            frames: length of the result; the first video's by default, 1 where only images are given.
            fps: of the result; the first video's by default.
            steps, guidance: solver steps and text guidance; the checkpoint's defaults when None.
            seed: the same seed gives the same result on the same machine.
            carry: detail carry-over on or off; the checkpoint's default when None.
            progress: called with (solver steps done, all of them).
            **media: `video1=...`, `image1=...`, `mask=...`; see `media_in.read_clip` for what is taken.

        Raises:
            SequenceError: text and media disagree, or a value is out of range; shards.media.MediaError: an
                unreadable file. Nothing heavy has been done by then.
        """
        defaults = self.config.inference
        steps = defaults.steps if steps is None else steps
        guidance = defaults.guidance if guidance is None else guidance
        if not text.strip():
            raise SequenceError("the text is empty: say what to do, e.g. '<video1> Remove the dog.'")
        if steps < 1:
            raise SequenceError(f"steps: needs at least 1, got {steps}")
        if frames is not None and frames < 1:
            raise SequenceError(f"frames: needs at least 1, got {frames}")
        clips = {name: read_clip(name, value) for name, value in media.items() if value is not None}
        text, target = name_target(text, clips)
        sources = [clips[name] for name in TAG.findall(text) if name in clips and not name.startswith("mask")]
        videos = [clip for clip in sources if not clip.still]
        still = target.startswith("image")
        if size is None:
            size = sources[0].size if sources else self._default_size()
        size = fitted_size(size[0], size[1], self.config, self.codec)
        length = frames or (1 if still else len(videos[0].frames) if videos else self.config.media.frames)
        if still and length != 1:
            raise SequenceError(f"frames: <{target}> is an image, it has one frame, not {length}")
        rate = fps or next((c.fps for c in videos if c.fps), self.config.media.fps)
        fitted = {name: self._fitted(clip) for name, clip in clips.items()}

        starts = windows(length, self.config.media.frames)
        done, total = 0, len(starts) * steps

        def tick() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, total)

        result = np.zeros((length, *size, 3), np.uint8)
        plain = np.zeros_like(result)
        for start in starts:
            stop = min(start + self.config.media.frames, length)
            part = {n: f if clips[n].still else f[start:stop] for n, f in fitted.items()}
            for name, piece in part.items():
                if not len(piece):
                    raise SequenceError(f"{name}: {len(fitted[name])} frames are too few for {length}")
            edit, raw = self._window(
                text, target, part, (stop - start, *size), steps, guidance, seed, carry, tick
            )
            result[start:stop], plain[start:stop] = to_pixels(edit), to_pixels(raw)
        return Edit(result, float(rate), still, plain)

    def _default_size(self) -> tuple[int, int]:
        side = int(self.config.media.max_area**0.5)
        return side, side

    def _fitted(self, clip: Clip) -> np.ndarray:
        from shards.media import resize

        return resize(clip.frames, fitted_size(*clip.size, self.config, self.codec))

    def _window(
        self,
        text: str,
        target: str,
        pixels: dict[str, np.ndarray],
        shape: tuple[int, int, int],
        steps: int,
        guidance: float,
        seed: int,
        carry: bool | None,
        tick: Callable[[], None],
    ) -> tuple[Tensor, Tensor]:
        """One window: (result, decoded edit before carry-over), float [T, H, W, 3] in [-1, 1]."""
        device = next(self.dit.parameters()).device
        videos = {name: to_float(frames) for name, frames in pixels.items()}
        latents = {name: self.codec.encode(video) for name, video in videos.items()}
        latents[target] = torch.zeros(*self.codec.latent_size(*shape), self.codec.channels)
        branches = [False] if guidance == 1 else [False, True]
        sequences = [
            build_sequence(
                interleave(text, latents, target, lambda part: self.text.encode([part])[0], drop_text=drop),
                self.config.sequence,
                self.codec.spatial,
            )
            for drop in branches
        ]
        segment = sequences[0].target
        batch = pack(sequences).to(device)
        noise = torch.randn(
            len(batch.target) // len(branches), self.config.dit.vision_dim, generator=keyed("edit", seed)
        ).to(device)

        def velocity(x: Tensor, t: float) -> Tensor:
            repeated = x.repeat(len(branches), 1)
            predicted = self._velocity(batch, repeated, t)
            tick()
            if len(branches) == 1:
                return predicted
            with_text, without_text = predicted.chunk(2)
            return guide(with_text, without_text, guidance)

        x = noise
        for step in SOLVERS[self.config.inference.solver](
            velocity, x, time_grid(steps, self.config.flow.shift)
        ):
            x = step
        decoded = self._decode(x, segment, shape)
        source = next(
            (n for n in videos if not n.startswith("mask") and videos[n].shape == decoded.shape), None
        )
        use = self.config.inference.carry_over if carry is None else carry
        if not use or source is None:
            return decoded, decoded
        coded = self.codec.decode(latents[source], shape).clamp(-1, 1)
        thresholds = self.config.inference.agree, self.config.inference.differ
        marked = (v for n, v in videos.items() if n.startswith("mask") and v.shape == decoded.shape)
        return carry_over(decoded, videos[source], coded, *thresholds, next(marked, None))[0], decoded

    def _velocity(self, batch: PackedBatch, x: Tensor, t: float) -> Tensor:
        """Velocity of the target tokens `x` at time t."""
        vision = batch.vision.index_copy(0, batch.target_vision, x)
        timestep = torch.ones(batch.segments, device=x.device)
        timestep[batch.target_segment] = t
        return to_velocity(self.dit(batch, vision, timestep)[0].float(), x, t, self.config.flow)

    def _decode(self, tokens: Tensor, segment: Segment, shape: tuple[int, int, int]) -> Tensor:
        latents = unpatchify(tokens, segment.size, self.config.sequence.patch)
        return self.codec.decode(latents.cpu(), shape).clamp(-1, 1)


def name_target(text: str, clips: dict[str, Clip]) -> tuple[str, str]:
    """(text with the target's tag, name of the target).

    The one tag without media is the target. Without such a tag a new one is appended: an image when only
    images are given, else a video.
    """
    tags = TAG.findall(text)
    for name in clips:
        if not TAG.fullmatch(f"<{name}>"):
            raise SequenceError(f"media {name!r}: names are video1, image1, mask and so on")
        if name not in tags:
            raise SequenceError(f"media {name!r} is given but the text does not name <{name}>")
    open_tags = [name for name in dict.fromkeys(tags) if name not in clips]
    for name in open_tags:
        if name.startswith("mask"):
            raise SequenceError(f"the text names <{name}> but no such media is given")
    if len(open_tags) > 1:
        raise SequenceError(
            f"the text names {', '.join(f'<{n}>' for n in open_tags)}; give media for all but one"
        )
    if open_tags:
        return text, open_tags[0]
    kinds = {name.rstrip("0123456789") for name in clips} - {"mask"}
    kind = "image" if kinds == {"image"} else "video"
    number = 1 + max((int(n.removeprefix(kind)) for n in clips if n.startswith(kind)), default=0)
    return f"{text.rstrip()} <{kind}{number}>", f"{kind}{number}"


def windows(length: int, most: int) -> list[int]:
    """First frames of the windows that cover `length` frames; the last one ends with the clip.

    Windows are edited one by one; where the last two overlap, the last one's frames are kept.
    """
    if length <= most:
        return [0]
    starts = list(range(0, length - most + 1, most))
    if starts[-1] + most < length:
        starts.append(length - most)
    return starts


def to_pixels(video: Tensor) -> np.ndarray:
    """Float [-1, 1] -> uint8."""
    pixels: np.ndarray = ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    return pixels


def with_inference(config: ModelConfig, **changes: Any) -> ModelConfig:
    """The configuration with other editor defaults."""
    return dataclasses.replace(config, inference=dataclasses.replace(config.inference, **changes))
