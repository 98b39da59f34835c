"""Image files of others as 8-bit RGB, with what was mended in words; what is no single picture is refused."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from curation.datasets.layouts.rows import Blob, MaskRule, Refused
from shards.errors import MediaError, first_line
from shards.media import check_size

_TURNS = {
    2: "mirrored",
    3: "rotated by 180 degrees",
    4: "mirrored and rotated by 180 degrees",
    5: "mirrored and rotated clockwise by 270 degrees",
    6: "rotated clockwise by 90 degrees",
    7: "mirrored and rotated clockwise by 90 degrees",
    8: "rotated clockwise by 270 degrees",
}
ORIENTATION = 0x0112  # EXIF


@dataclass(frozen=True)
class Picture:
    """uint8 RGB [H, W, 3] as a person should see it, and what was mended, in words."""

    pixels: np.ndarray
    mended: tuple[str, ...]


def _opened(data: bytes, name: str) -> Any:
    """A Pillow image with all its pixels decoded, still as it is stored."""
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":  # Pillow would allocate the canvas to open it
        width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (24, 27))
        _check(height, width, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own, higher limit, and of oddities in metadata
            image = Image.open(io.BytesIO(data))
            _check(image.height, image.width, name)
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise Refused("animated image", f"{name}: {getattr(image, 'n_frames', 2)} pictures")
            deep = any("16" in str(tile[3]) for tile in image.tile) or image.mode.startswith("I")
            image.load()
    except Refused:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit comes before ours
        raise Refused("image too large", f"{name}: {first_line(error)}") from None
    except Image.UnidentifiedImageError:
        raise Refused("not an image", name) from None
    except Exception as error:  # whatever Pillow's readers raise for a damaged file
        raise Refused("image does not decode", f"{name}: {first_line(error)}") from error
    image.info["deep"] = deep
    return image


def _check(height: int, width: int, name: str) -> None:
    try:
        check_size(height, width, name)
    except MediaError as error:
        raise Refused("image too large", str(error)) from None


def read_picture(data: bytes, name: str) -> Picture:
    """An image file as a picture.

    EXIF rotation is applied; an embedded colour profile is brought to sRGB; CMYK, YCbCr, LAB, palettes and
    grey become RGB, by the profile where there is one; of 16 bits the upper eight are kept; transparency is
    laid over white.

    Raises:
        Refused: no image, damaged or cut off, animated or of several pages, or beyond `shards.limits`.
    """
    image = _opened(data, name)
    words: list[str] = []
    turn = image.getexif().get(ORIENTATION)
    if turn in _TURNS:
        words.append(_TURNS[turn])
    profile, deep = image.info.get("icc_profile"), image.info["deep"]
    try:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F":
            raise Refused("image of floating point", name)
        if deep:
            words.append("16 bits brought to 8")
        if image.mode.startswith("I"):
            grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return Picture(np.repeat(grey[..., None], 3, axis=-1), tuple(words))
        if image.mode == "P":
            words.append("palette")
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = _flattened(image.convert("RGBA"), words)
        if profile:
            image = _in_srgb(image, profile, words)
        if image.mode != "RGB":
            if image.mode not in ("L", "1"):
                words.append(f"{image.mode} brought to RGB")
            image = image.convert("RGB")
        return Picture(np.array(image), tuple(words))
    except Refused:
        raise
    except Exception as error:  # a damaged EXIF block, or what Pillow cannot convert
        raise Refused("image does not decode", f"{name}: {first_line(error)}") from error


def _flattened(image: Any, words: list[str]) -> Any:
    """RGBA over white, as RGB."""
    if image.getchannel("A").getextrema()[0] < 255:
        words.append("transparency laid over white")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _in_srgb(image: Any, profile: bytes, words: list[str]) -> Any:
    """The image in sRGB by its own profile; as it is where that is sRGB, or damaged, or of another mode."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        if "srgb" in name.lower() and image.mode == "RGB":
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        words.append("unreadable colour profile ignored")
        return image
    words.append(f"{image.mode} of the profile {name or 'without name'} brought to sRGB")
    return converted


def read_mask_picture(blob: Blob, rule: MaskRule) -> np.ndarray:
    """The mask in an image file, bool [H, W]: its inside by `rule`.

    Raises:
        Refused: as `read_picture`.
    """
    data = blob.read()
    if rule == "transparent":
        image = _opened(data, blob.name)
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(image.convert("RGBA").getchannel("A")) < 128
    luma = np.array(Image.fromarray(read_picture(data, blob.name).pixels).convert("L"))
    inside: np.ndarray = luma >= 128 if rule == "bright" else luma < 128
    return inside
