"""What describes a trained editor: encoders, sequence layout, transformer, flow, media sizes, defaults.

`config.json` beside the weights holds exactly this.
"""

from __future__ import annotations

import functools
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model.encoders import build, part
from model.extras.config import ExtrasConfig
from model.flow.flow_matching import FlowConfig
from model.net.config import DiTConfig, check_extras
from model.net.families import transformer_config
from model.net.wan_config import WanConfig
from model.sequence.interleave import SequenceConfig
from shards.aliases import renewed
from shards.errors import ConfigError, EditVerseError
from shards.limits import (
    MAX_DECODED_BYTES,
    MAX_FRAMES,
    MAX_PIXELS,
    MAX_SOLVER_STEPS,
    in_range,
    read_json,
)
from shards.media import fit_size
from shards.serialization import from_dict, to_dict


@dataclass(frozen=True)
class MediaConfig:
    """Sizes that the model works at, in pixels and frames.

    Attributes:
        min_area, max_area: of a frame, in pixels; a medium is resized to the nearest size of its aspect ratio
            whose sides divide into tokens (`shards.media.fit_size`). The paper's range is the default.
        frames: frames of a training clip; the editor takes longer sources window by window.
        fps: frame rate of what is made from no video at all.
    """

    min_area: int = 256 * 256
    max_area: int = 512 * 512
    frames: int = 17
    fps: float = 10.0

    def __post_init__(self) -> None:
        in_range("media.min_area", self.min_area, 1, MAX_PIXELS)
        in_range("media.max_area", self.max_area, self.min_area, MAX_PIXELS)
        in_range("media.frames", self.frames, 1, min(MAX_FRAMES, MAX_DECODED_BYTES // (3 * self.max_area)))
        in_range("media.fps", self.fps, 0.01, 1000)


@dataclass(frozen=True)
class InferenceConfig:
    """The editor's defaults.

    Attributes:
        steps, guidance: solver steps, and scale of the guidance on the text (1 is none).
        interval: first and last time at which guidance is applied (Kynkaanniemi et al. 2024); outside it the
            unconditional branch is not computed. The paper guides all the way.
        rescale: see `model.flow.guidance.rescaled`.
        solver: see `model.flow.solvers`; `unipc_wan` also takes Wan's times, see `wan_grid`.
        video_guidance, image_guidance: scales of guidance on the source videos and, after them, the images,
            apart from the text (1 is none, and costs nothing); see `model.flow.guidance.chain`.
        eta, norm, momentum: of adaptive projected guidance, see `model.flow.guidance.ProjectedGuidance`;
            1, 0 and 0 are plain guidance.
        negative: prompt of the unconditional branch, of models whose text stands apart from the tokens.
    """

    steps: int = 50
    guidance: float = 5.0
    interval: tuple[float, ...] = (0.0, 1.0)
    rescale: float = 0.0
    solver: typing.Literal["euler", "midpoint", "unipc", "unipc_wan"] = "euler"
    video_guidance: float = 1.0
    image_guidance: float = 1.0
    eta: float = 1.0
    norm: float = 0.0
    momentum: float = 0.0
    negative: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: needs at least 1, got {self.steps}")
        in_range("steps", self.steps, 1, MAX_SOLVER_STEPS)
        for name in ("guidance", "video_guidance", "image_guidance"):
            in_range(name, getattr(self, name), -1000, 1000)
        in_range("eta", self.eta, -100, 100)
        in_range("norm", self.norm, 0, 1e6)
        in_range("momentum", self.momentum, -1, 1)
        if len(self.interval) != 2 or not 0 <= self.interval[0] <= self.interval[1] <= 1:
            raise ValueError(f"interval: two times from 0 to 1 in order, got {self.interval}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale: from 0 to 1, got {self.rescale}")
        if self.solver not in typing.get_args(typing.get_type_hints(InferenceConfig)["solver"]):
            raise ValueError(f"solver: {self.solver!r} is none of euler, midpoint, unipc, unipc_wan")

    @property
    def projected(self) -> bool:
        """Whether guidance is adaptive projected guidance."""
        return (self.eta, self.norm, self.momentum) != (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that `Editor.from_pretrained` needs besides the weights.

    Attributes:
        transformer: class path and arguments of a family in place of `dit`, see `model.net.families`.
    """

    model_type: typing.Literal["editverse"] = "editverse"
    vae: dict[str, Any] = field(default_factory=lambda: part("model.encoders.transform.TransformCodec"))
    text_encoder: dict[str, Any] = field(default_factory=lambda: part("model.encoders.text.MiniLM"))
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    extras: ExtrasConfig = field(default_factory=ExtrasConfig)
    transformer: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_extras(self.extras, self.dit)
        network, wanted = self.network, "inline"
        if isinstance(network, WanConfig):
            wanted = "both" if network.words else "cross_attention"
        if self.sequence.text != wanted:
            raise ConfigError(f"sequence.text: this transformer takes {wanted}, not {self.sequence.text}")
        if isinstance(network, WanConfig) and self.sequence.patch != 2:
            raise ConfigError(f"sequence.patch: this transformer takes 2, not {self.sequence.patch}")

    @functools.cached_property
    def network(self) -> DiTConfig | WanConfig:
        """Sizes of the transformer: those of `transformer`, else `dit`."""
        if self.transformer is None:
            return self.dit
        return transformer_config(self.transformer, "transformer")

    def with_widths(self, vision_dim: int, text_dim: int) -> ModelConfig:
        """This model, whose transformer takes tokens of these widths.

        Raises:
            ConfigError: it says that it takes others.
        """
        network = self.network
        for name, given, width in (
            ("vision_dim", network.vision_dim, vision_dim),
            ("text_dim", network.text_dim, text_dim),
        ):
            if given not in (0, width):
                where = "dit" if self.transformer is None else "transformer.init_args"
                raise ConfigError(
                    f"model.{where}.{name} is {given}; the encoders give {width} (0 takes what they give)"
                )
        return self.with_network(replace(network, vision_dim=vision_dim, text_dim=text_dim))

    def with_network(self, network: DiTConfig | WanConfig) -> ModelConfig:
        """This model with other sizes of the same family."""
        if isinstance(network, DiTConfig) and self.transformer is None:
            return replace(self, dit=network)
        assert self.transformer is not None  # there is no other way to a network that is not `dit`
        return replace(self, transformer=part(self.transformer["class_path"], **to_dict(network)))


def build_part(spec: dict[str, Any], port: type, where: str) -> Any:
    """`model.encoders.build`, whose refusal becomes a ConfigError that begins with `where`."""
    try:
        return build(spec, port)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def load_config(path: Path) -> ModelConfig:
    """Read a checkpoint's `config.json`; raises ConfigError naming the file and the fault."""
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: not found; a checkpoint folder holds config.json and model.safetensors"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except EditVerseError as error:
        raise ConfigError(str(error)) from error
    config: ModelConfig = from_dict(ModelConfig, renewed({"model": value})["model"], str(path))
    return config


Size = tuple[int, int]  # height, width


def fitted_size(height: int, width: int, config: MediaConfig, multiple: int) -> Size:
    """(height, width) at which the model sees a medium: area in the preset's range, sides dividing.

    Args:
        multiple: pixels per token.

    Raises:
        ConfigError: the range holds no such size.
    """
    try:
        return fit_size(height, width, min_area=config.min_area, max_area=config.max_area, multiple=multiple)
    except ValueError as error:
        raise ConfigError(f"media of {width}x{height}: {error}") from error
