"""Signals of a CLIP-like model of the user's choice: agreement of pictures and words, and near duplicates."""

from __future__ import annotations

import base64
import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from curation.quality.duplicates import another_wording, compared_groups, digests
from curation.quality.pairs import Pair
from curation.quality.signals import Signal, Values
from curation.quality.signals_models import CHOSEN, LOOKED_AT, some_of
from curation.vlm import hub
from curation.vlm.interface import Backend
from shards.scores import SAMPLE_NUMBER

ROWS = 1024  # of embeddings that are compared with all earlier ones at once


class ClipLike:
    """Embeddings by a model of transformers with `get_image_features`, as CLIP and SigLIP have it.

    Args:
        checkpoint: folder or hub repository.
    """

    license = CHOSEN
    gpus: ClassVar[float] = 0.1

    def __init__(self, checkpoint: str, device: str = "auto") -> None:
        self.checkpoint, self.device = checkpoint, device

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        folder = hub.folder_of(self.checkpoint, "a CLIP-like model", CHOSEN)
        return Backend("transformers", folder.name, hub.revision_of(folder), {"frames": LOOKED_AT})

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoProcessor

        folder = hub.folder_of(self.checkpoint, "a CLIP-like model", CHOSEN)
        hub.note_loaded("CLIP-like model")
        model = AutoModel.from_pretrained(folder).eval().to(hub.device_of(self.device))
        return AutoProcessor.from_pretrained(folder), model

    def picture(self, video: np.ndarray) -> np.ndarray:
        """The mean embedding of some frames of a video uint8 [T, H, W, 3]; float32 [D]."""
        processor, model = self._loaded
        inputs = processor(images=list(some_of(video)), return_tensors="pt").to(model.device)
        return _unit(model.get_image_features, inputs)

    def words(self, text: str) -> np.ndarray:
        """The embedding of a text, float32 [D]."""
        processor, model = self._loaded
        made = {"return_tensors": "pt", "padding": "max_length", "truncation": True}  # as SigLIP was trained
        return _unit(model.get_text_features, processor(text=[text], **made).to(model.device))


class WordAgreement(ClipLike):
    """Grader by a CLIP-like model of transformers: does the change go where the instruction says?

    Args:
        checkpoint: folder or hub repository of a model with `get_image_features` and `get_text_features`.
    """

    name = "words"
    signals = (
        Signal("word_agreement", "higher", "cosine", "target and instruction", "an instruction"),
        Signal(
            "word_direction",
            "higher",
            "cosine",
            "the change from source to target and the instruction",
            "a source and an instruction",
            "what such models do not tell apart: left and right, numbers, small objects",
        ),
        Signal("picture_agreement", "neither", "cosine", "source and target", "a source"),
    )

    def measure(self, pair: Pair) -> Values:
        """See `curation.quality.signals.Grader`."""
        target = self.picture(pair.target)
        source = None if pair.source is None else self.picture(pair.source)
        words = self.words(pair.instruction) if pair.instruction else None
        change = None if source is None else target - source
        return {
            "word_agreement": None if words is None else _cosine(target, words),
            "word_direction": None if words is None or change is None else _cosine(change, words),
            "picture_agreement": None if source is None else _cosine(source, target),
        }


class EmbeddingDuplicates(ClipLike):
    """Compares every pair with the earlier ones of its task by what a model sees in source and target.

    It finds crops, mirror images and other takes of a scene, which a perceptual hash does not. The same media
    under another instruction are no duplicate.
    """

    name = "embedding_duplicates"
    signals = (
        Signal(
            "embedding_likeness",
            "lower",
            "cosine",
            "of the nearest earlier sample of the task, the less alike of source and target",
            "an earlier sample of the task",
        ),
        Signal("embedding_duplicate_of", "neither", SAMPLE_NUMBER, "which earlier sample that is, from 0"),
    )

    def measure(self, pair: Pair) -> Values:
        """Nothing: see `compare`."""
        return {}

    def marks(self, pair: Pair) -> list[str]:
        """The embeddings of target and source (the target's again without one), and digests of the pair."""
        target = self.picture(pair.target)
        both = np.stack([target, target if pair.source is None else self.picture(pair.source)])
        both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
        return [base64.b64encode(both.astype("<f2").tobytes()).decode(), *digests(pair)]

    def compare(self, marks: Sequence[list[str]], kinds: Sequence[str]) -> dict[str, np.ndarray]:
        """The likeness of each to the nearest earlier one, and which that is. Time grows with the square."""
        likeness = np.full(len(marks), np.nan, np.float32)
        of = np.full(len(marks), np.nan, np.float32)
        for numbers in compared_groups(marks, kinds):
            read = [np.frombuffer(base64.b64decode(marks[n][0]), "<f2") for n in numbers]
            target, source = np.stack(read).reshape(len(numbers), 2, -1).astype(np.float32).swapaxes(0, 1)
            same = defaultdict(list)  # places of pairs with the same pixels
            for place, number in enumerate(numbers):
                same[marks[number][1]].append(place)
            for start in range(0, len(numbers), ROWS):
                rows = np.arange(start, min(start + ROWS, len(numbers)))
                alike = np.minimum(target[rows] @ target[: rows[-1]].T, source[rows] @ source[: rows[-1]].T)
                alike[rows[:, None] <= np.arange(rows[-1])] = -np.inf  # itself, and what comes later
                for row, place in enumerate(rows.tolist()):
                    number = numbers[place]
                    for other in same[marks[number][1]]:
                        if other < place and another_wording(marks[number][1:], marks[numbers[other]][1:]):
                            alike[row, other] = -np.inf
                    if place and np.isfinite(best := alike[row].max()):
                        likeness[number], of[number] = best, numbers[int(alike[row].argmax())]
        return {"embedding_likeness": likeness, "embedding_duplicate_of": of}


def _unit(encode: Any, inputs: Any) -> np.ndarray:
    """The mean of a model's features of length 1, float32 [D]."""
    import torch

    with torch.inference_mode():
        found = encode(**inputs)
    features = getattr(found, "pooler_output", found).float()
    mean: np.ndarray = torch.nn.functional.normalize(features, dim=-1).mean(0).cpu().numpy()
    return mean


def _cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 1e-6 else None  # 0: nothing changed
