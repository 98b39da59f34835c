"""Latents and token states made beforehand: what they depend on, how they are named, how they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from model.config import ModelConfig
from model.data.batch import DataConfig
from shards.encoded import EncodedSet
from shards.errors import ConfigError, EditVerseError
from shards.hashing import digest
from shards.limits import parse_json
from shards.location import Location, ShardError
from shards.manifest import ManifestRow

DESCRIPTION = "encoding.json"
# Fields of encoding.json whose settings have another name. The names in the file stay as they were: its hash
# stands in every index of encoded samples.
SETTING_OF = {
    "codec": "vae",
    "text": "text_encoder",
    "windows": "crops",
    "text_as": "sequence.text",
    "system_prompt": "sequence.system_prompt",
}
Windows = Mapping[str, tuple[int, int]]


def encoding_of(model: ModelConfig, data: DataConfig) -> dict[str, Any]:
    """What latents and states depend on besides the sample, as JSON values named as in `encoding.json`."""
    value = {
        "format": 1,
        "codec": model.vae,
        "text": model.text_encoder,
        "media": {name: asdict(model.media)[name] for name in ("min_area", "max_area", "frames")},
        "patch": model.sequence.patch,
        "windows": data.crops,
        "flip": data.flip_prob > 0,
    }
    if model.sequence.has_prompt:  # else the field is left out, as before there was another way
        value |= {"text_as": model.sequence.text, "system_prompt": model.sequence.system_prompt}
    result: dict[str, Any] = json.loads(json.dumps(value))
    return result


def digest_of(encoding: Mapping[str, Any]) -> str:
    """sha256 of an encoding."""
    return digest(encoding, "spaced")


def read_encoding(folder: str) -> dict[str, Any] | None:
    """The encoding that a folder or URL of encoded samples holds, None where there is none yet."""
    location = Location(folder)
    try:
        value = parse_json(location.read(DESCRIPTION), location.path(DESCRIPTION))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ShardError:
        raise
    except EditVerseError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(value, dict) or not isinstance(value.get("codec"), dict):
        raise ConfigError(f"{location.path(DESCRIPTION)}: describes no encoding")
    return value


def known_codec(folder: str, codec: dict[str, Any]) -> dict[str, Any]:
    """The codec of a folder, if it is `codec` with more arguments (measured statistics), else `codec`."""
    encoding = read_encoding(folder)
    theirs = encoding["codec"] if encoding else codec
    ours, full = codec.get("init_args", {}), theirs.get("init_args", {})
    same = codec.get("class_path") == theirs.get("class_path")
    return theirs if same and all(full.get(name) == value for name, value in ours.items()) else codec


def check(folder: str, encoding: Mapping[str, Any]) -> None:
    """Raise ConfigError if a folder has no encoding, or naming the first field in which it has another."""
    theirs = read_encoding(folder)
    if theirs is None:
        raise ConfigError(
            f"data.latent_cache: {folder} has no {DESCRIPTION}; run `python -m model precompute`"
        )
    for name in {**encoding, **theirs}:
        value = encoding.get(name)
        if theirs.get(name) != value:
            setting = SETTING_OF.get(name, name)
            raise ConfigError(
                f"data.latent_cache: {folder} was encoded with {setting} {theirs.get(name)!r}, this run has "
                f"{value!r}; encode into another folder"
            )


def latent_name(element: str, start: int, flipped: bool) -> str:
    """Tensor of the latents of an element's window."""
    return f"{element}/{start}" + "/flipped" * flipped


def states_name(piece: int, flipped: bool) -> str:
    """Tensor of the states of a piece of text; a piece that mirroring does not change is there once."""
    return f"text/{piece}" + "/flipped" * flipped


class LatentCache:
    """The encoded samples of one folder of shards.

    Raises:
        ConfigError: they are of another encoding; shards.location.ShardError: they are not there.
    """

    def __init__(self, folder: str, rows: Iterable[ManifestRow], encoding: Mapping[str, Any]) -> None:
        check(folder, encoding)
        self.files = EncodedSet(folder, rows, digest_of(encoding))

    def of(self, shard: str) -> EncodedShard:
        """Its samples of one shard."""
        return EncodedShard(self.files, shard)


@dataclass(frozen=True)
class EncodedShard:
    """The encoded samples of one shard."""

    files: EncodedSet
    shard: str

    def texts(self, key: str) -> list[int]:
        """Tokens of each piece of a sample's text, see `texts_of` of the data set."""
        return self.files.texts(self.shard, key)

    def load(self, key: str, windows: Windows, flipped: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Latents of each element's window, and states of each piece of text, as float32."""
        from safetensors.torch import load

        tensors = load(self.files.read(self.shard, key))
        try:
            latents = {
                name: tensors[latent_name(name, start, flipped)].float()
                for name, (start, _) in windows.items()
            }
            states = []
            for piece in range(len(self.texts(key))):
                name = states_name(piece, flipped)
                states.append(tensors[name if name in tensors else states_name(piece, False)].float())
            return latents, states
        except KeyError as error:
            raise ShardError(f"{self.files.location}: {key}: has no {error}; encode it again") from None
