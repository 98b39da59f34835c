"""What a vision-language model is asked, and what every annotator says of itself.

Frames are uint8 RGB [H, W, 3].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from shards.errors import EditVerseError


class AnnotatorError(EditVerseError, RuntimeError):
    """A backend could not do its work on this input; one line. The candidate or clip is quarantined.

    Attributes:
        kind: of the failure, where it is known: `timeout`, `transport`, `server`, `busy`, `quota`, `request`,
            `filter`, `refusal`, `answer`.
    """

    def __init__(self, message: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class NoAnswerError(AnnotatorError):
    """A language model said nothing, refused, or gave no grade: it may be asked again in other words."""


@dataclass(frozen=True)
class Backend:
    """What an annotator is, for provenance and for the workspace key: no path of any machine in it."""

    backend: str
    model: str = ""
    revision: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)  # plain values, to be hashed

    def also(self, **settings: Any) -> Backend:
        """The same with further settings: of what an annotator does around another one."""
        return replace(self, settings={**self.settings, **settings})

    @staticmethod
    def of_parts(name: str, parts: Mapping[str, Annotator], **settings: Any) -> Backend:
        """Several annotators under one name; each is told whole in the settings."""
        told = {part: annotator.describe() for part, annotator in parts.items()}
        model, revision = ("+".join(getattr(b, of) for b in told.values()) for of in ("model", "revision"))
        return Backend(name, model, revision, {**{part: vars(b) for part, b in told.items()}, **settings})


def license_of(annotator: Any) -> str:
    """The licence that an annotator states of its model, and those of its parts; "" where none is stated."""
    inner = [license_of(part) for part in getattr(annotator, "parts", {}).values()]
    return "; ".join(dict.fromkeys(filter(None, [str(getattr(annotator, "license", "")), *inner])))


@dataclass(frozen=True)
class Rating:
    """A grade from 0 to 10, the entropy (nats) of the grades that were weighed, and the answer itself."""

    value: float
    entropy: float | None
    text: str


class Annotator(Protocol):
    """Anything that a YAML file can choose by class_path; weights are loaded at the first call."""

    def describe(self) -> Backend:
        """Name, model, revision and settings. Raises AssetError when a model file is missing."""
        ...


class Vlm(Annotator, Protocol):
    """A language model that looks at pictures [H, W, 3] and videos [T, H, W, 3].

    Media come before the text, each kind counted from 1 ("Picture 1", "Video 1") when there are several.
    `system` is the role, said before everything. `times` holds, for each video among the media, the seconds
    of its frames; who tells them has chosen the frames, and all of them are shown.
    """

    def ask(
        self,
        media: Sequence[np.ndarray],
        text: str,
        *,
        system: str = "",
        times: Sequence[Sequence[float]] = (),
    ) -> str:
        """Its answer. Raises NoAnswerError when it says nothing or refuses, AnnotatorError when it fails."""
        ...

    def rate(
        self,
        media: Sequence[np.ndarray],
        text: str,
        *,
        system: str = "",
        times: Sequence[Sequence[float]] = (),
    ) -> Rating:
        """A grade from 0 to 10.

        Raises NoAnswerError when the answer holds none, AnnotatorError when the model fails.
        """
        ...
