"""Labels by people: which samples to keep and why not, a line of JSON each, several people in one file.

`{"key": "...", "keep": false, "reasons": ["blur"], "by": "Ada", "at": "2026-05-01T10:00:00+00:00"}`. A later
line of the same person about the same sample counts in place of the earlier one; `"keep": null` takes a label
back. Lines are only ever added, so a crash costs the last one at most.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from shards.errors import ConfigError, EditVerseError
from shards.limits import MAX_LINE_BYTES
from shards.sample import KEY_PATTERN, Strict, explain

MAX_REASONS = 20
NAME_PATTERN = r"^[^\x00-\x1f\x7f]{1,60}$"


class Label(Strict):
    """What one person says of one sample.

    Attributes:
        keep: None takes an earlier label back.
        reasons: why it is not to be kept, in the words that the page offers.
        by: the person's name. at: when, ISO 8601 in UTC.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    key: Annotated[str, Field(pattern=KEY_PATTERN)]
    keep: bool | None
    reasons: tuple[Annotated[str, Field(pattern=NAME_PATTERN)], ...] = Field((), max_length=MAX_REASONS)
    by: Annotated[str, Field(pattern=NAME_PATTERN)] = "someone"
    at: str = ""


@dataclass(frozen=True)
class Agreement:
    """How far two people agree on the samples that both labelled.

    Attributes:
        share: of the samples on which both say the same. kappa: Cohen's, None where it has no value: one of
            them gave one answer alone, and so did the other.
    """

    first: str
    second: str
    samples: int
    share: float
    kappa: float | None


@dataclass
class LabelSet:
    """All labels of a file.

    Attributes:
        votes: by sample and person.
        history: person and sample of each label, in the order in which they were given.
        faults: lines that are no label, by what is wrong with them.
    """

    votes: dict[str, dict[str, Label]] = field(default_factory=dict)
    history: list[tuple[str, str]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, label: Label) -> None:
        """Take a label in place of the same person's earlier one of that sample."""
        of_sample = self.votes.setdefault(label.key, {})
        if label.keep is None:
            of_sample.pop(label.by, None)
        else:
            of_sample[label.by] = label
            self.history.append((label.by, label.key))
        if not of_sample:
            del self.votes[label.key]

    def last_of(self, by: str) -> Label | None:
        """The newest label of a person that was not taken back."""
        of_person = (key for name, key in reversed(self.history) if name == by)
        return next((self.votes[key][by] for key in of_person if by in self.votes.get(key, ())), None)

    @property
    def people(self) -> list[str]:
        """Names of all who labelled, sorted."""
        return sorted({name for of_sample in self.votes.values() for name in of_sample})

    def decided(self) -> tuple[dict[str, bool], dict[str, frozenset[str]], list[str]]:
        """What the majority says of each sample, the reasons against it, and the samples without majority."""
        keep: dict[str, bool] = {}
        reasons: dict[str, frozenset[str]] = {}
        disputed = []
        for key, of_sample in self.votes.items():
            ayes = sum(bool(label.keep) for label in of_sample.values())
            if 2 * ayes == len(of_sample):
                disputed.append(key)
                continue
            keep[key] = 2 * ayes > len(of_sample)
            against = [label.reasons for label in of_sample.values() if not label.keep]
            reasons[key] = frozenset(() if keep[key] else itertools.chain.from_iterable(against))
        return keep, reasons, disputed

    def agreement(self) -> list[Agreement]:
        """Of every two people who labelled common samples."""
        found = []
        for first, second in itertools.combinations(self.people, 2):
            both = [
                (bool(of_sample[first].keep), bool(of_sample[second].keep))
                for of_sample in self.votes.values()
                if first in of_sample and second in of_sample
            ]
            if both:
                share = sum(a == b for a, b in both) / len(both)
                found.append(Agreement(first, second, len(both), share, cohens_kappa(both)))
        return found


def cohens_kappa(answers: Iterable[tuple[bool, bool]]) -> float | None:
    """Agreement of two people beyond what their shares of yes give by chance (Cohen 1960).

    1 is perfect, 0 is chance; None where chance alone would have them agree always.
    """
    both = list(answers)
    first, second = (sum(pair[i] for pair in both) / len(both) for i in (0, 1))
    chance = first * second + (1 - first) * (1 - second)
    share = sum(a == b for a, b in both) / len(both)
    return None if chance == 1 else (share - chance) / (1 - chance)


def read_labels(path: str | Path) -> LabelSet:
    """Read a file of labels; lines that are none are counted by what is wrong with them.

    Raises:
        ConfigError: there is no such file.
    """
    labels = LabelSet()
    try:
        with Path(path).open("rb") as lines:
            while line := lines.readline(MAX_LINE_BYTES):
                if line.strip():
                    _read_line(labels, line)
    except OSError as error:
        raise ConfigError(f"--labels {path}: {error.strerror}") from None
    return labels


def _read_line(labels: LabelSet, line: bytes) -> None:
    try:
        labels.add(Label.model_validate_json(line))
    except ValidationError as error:
        labels.faults[explain(error).partition(":")[0] if line.endswith(b"\n") else "a line cut short"] += 1


class LabelFile:
    """A file of labels to add to; what is added is on disk before it counts.

    Raises:
        ConfigError: the file cannot be written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self.path.open("ab")
        except OSError as error:
            raise ConfigError(f"--labels {path}: {error.strerror}") from None
        self.labels = read_labels(path)
        if self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n"):
            self._handle.write(b"\n")  # after a line that a crash cut short

    def add(self, label: Label) -> None:
        """Write a label at the end of the file, and take it."""
        label = label.model_copy(update={"at": datetime.now(UTC).isoformat(timespec="seconds")})
        self._handle.write(json.dumps(label.model_dump(mode="json"), ensure_ascii=False).encode() + b"\n")
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self.labels.add(label)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def choose_next(
    labels: LabelSet, wanted: Mapping[str, int], by: str, busy: Mapping[str, set[str]]
) -> str | None:
    """The sample that a person is to label next, None when nothing is left for them.

    Samples that someone has begun and that need one more person come before those of nobody, so that
    agreement is known early.

    Args:
        wanted: how many people are to label each sample, in the order in which they are labelled.
        busy: by sample, who look at it now; they count as if they had labelled it.
    """
    fresh: str | None = None
    for key, people in wanted.items():
        voted = labels.votes.get(key, {})
        others = ({*voted} | busy.get(key, set())) - {by}
        if by in voted or len(others) >= people:
            continue
        if others:
            return key
        fresh = fresh or key
    return fresh


class LabelError(EditVerseError, ValueError):
    """Labels that say nothing of the samples that they are used for."""
