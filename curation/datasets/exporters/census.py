"""What a shard folder holds, counted from every sample's JSON: tasks, licences, steps, elements, scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from curation.datasets.exporters.shapes import Shape, merge
from shards.reader import ShardSet
from shards.sample import Sample, Step

# Of a clip's licence, as the sample says it in words, the identifier that the Hugging Face Hub knows.
HUB_LICENSES = (
    "apache-2.0",
    "mit",
    "cc0-1.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-4.0",
    "cc-by-sa-4.0",
    "cc-by-nd-4.0",
    "cc-by-4.0",
    "cc-by-3.0",
    "bsd-3-clause",
    "bsd-2-clause",
    "bsd",
    "openrail",
    "odc-by",
    "gpl-3.0",
    "unknown",
)


@dataclass
class TaskCount:
    """Samples of one task.

    Attributes:
        splits: samples by split.
        elements: how often each element (video1, mask) is there.
        frames, seconds: of the targets, summed.
    """

    splits: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    seconds: float = 0.0


@dataclass
class Census:
    """The counts of one shard folder.

    Attributes:
        licenses: samples by the licence of their clip.
        steps: samples by stage, backend, model and revision of the steps that made them.
        files: what the elements' members are called behind the key ("video1.mp4").
        document: the type of all samples' JSON, see `shapes`.
        crossings: samples by what goes in and what comes out ("video-to-video").
    """

    samples: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    tasks: dict[str, TaskCount] = field(default_factory=dict)
    licenses: Counter[str] = field(default_factory=Counter)
    steps: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)
    document: Shape = None
    crossings: Counter[str] = field(default_factory=Counter)

    def add(self, sample: Sample) -> None:
        """Count a sample."""
        self.samples += 1
        self.splits[sample.split] += 1
        task = self.tasks.setdefault(sample.task, TaskCount())
        task.splits[sample.split] += 1
        task.elements.update(list(sample.media))  # names; of a mapping it would add the values
        for name in sample.targets:
            media = sample.media[name]
            task.frames += media.frames
            task.seconds += media.frames / media.fps if media.fps else 0.0
        self.licenses[sample.provenance.clip.license] += 1
        self.steps.update({_step(step) for step in sample.provenance.steps})
        self.files |= {media.file for media in sample.media.values()}
        self.document = merge(self.document, json.loads(sample.to_json()))
        self.crossings[_crossing(sample)] += 1


def _step(step: Step) -> tuple[str, str, str, str]:
    return step.stage, step.backend, step.model, step.revision


def _crossing(sample: Sample) -> str:
    target = sample.media[sample.targets[0]].kind
    kinds = {media.kind for name, media in sample.media.items() if name not in sample.targets} - {"mask"}
    source = "video" if "video" in kinds else "image" if "image" in kinds else "text"
    return "image-to-image" if (source, target) == ("video", "image") else f"{source}-to-{target}"


def take_census(shards: str, split: str | None = None) -> Census:
    """Count every sample of a shard folder or URL.

    Raises:
        ShardError: it cannot be read, or has no such split.
    """
    census = Census()
    samples = ShardSet(shards, split)
    for number in range(len(samples)):
        census.add(samples.sample(number))
    return census


def hub_license(text: str) -> str:
    """The Hub's identifier of a licence that is said in words; "other" where it has none.

    The words begin with it: "Apache-2.0 (as stated by the package)".
    """
    plain = "-".join(text.lower().replace("_", "-").split())
    return next(
        (known for known in HUB_LICENSES if plain == known or plain.startswith(f"{known}-(")), "other"
    )


def hub_licenses(licenses: Iterable[str]) -> list[str]:
    """The Hub's identifiers of several licences, each once, sorted."""
    return sorted({hub_license(text) for text in licenses})
