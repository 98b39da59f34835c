"""What a study asks, of whom, and which raters it will leave out: fixed before the first vote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmark.core.item import BenchmarkError
from shards.errors import first_line

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=80)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Frozen):
    """A criterion that every pair is judged by.

    Attributes:
        id: names the criterion in votes and tables.
        title, text: what the rater reads.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    title: Name
    text: Annotated[str, Field(min_length=1, max_length=500)]


class Exclusion(_Frozen):
    """Which raters are left out, decided before there are votes; analyses are shown with them and without.

    Attributes:
        min_gold: least share of right answers over attention checks, all criteria together.
        min_repeats: least share of equal answers over pairs that were shown twice.
        min_seconds: least median time for a pair, in seconds.
    """

    min_gold: Share = 0.7
    min_repeats: Share = 0.0
    min_seconds: Annotated[float, Field(ge=0)] = 0.0


# The paper's three criteria, in its words where they are given (appendix, "User Study").
QUESTIONS = (
    Question(
        id="alignment",
        title="Text-instruction alignment",
        text="Which video better follows the provided instruction?",
    ),
    Question(
        id="preservation",
        title="Preservation of unedited regions",
        text="Are unmodified parts of the video accurately preserved, with minimal distortion or artifacts? "
        "Select the one that preserves better.",
    ),
    Question(
        id="aesthetics",
        title="Aesthetic quality",
        text="Which video is more visually appealing in terms of realism, smoothness, and overall perceptual "
        "quality?",
    ),
)


class StudyDefinition(_Frozen):
    """A study.

    Attributes:
        name: that raters see.
        suite, data: where instructions and source videos come from, as for `benchmark run`.
        methods: folder of finished results by method.
        design: `balanced`: every two methods meet equally often (a balanced incomplete design over items);
            `star`: `center` meets each other method, as in the paper.
        pairs: comparisons in all, spread over pairs of methods and strata of items.
        raters: number of raters; raters_per_pair: that judge each comparison.
        practice, gold_ties, gold_losses, repeats: per rater: first items that do not count, identical clips,
            a result beside a corrupted copy of itself, and comparisons shown a second time.
        questions: criteria.
        exclusion: the rule by which raters are left out.
        height: of all prepared videos, in pixels; fps: their rate, None for the source's.
        max_seconds: longer clips are cut to this.
        seed: of the design, of orders and of sides.
        language: of the pages: `en`, or the path of a YAML file with the texts of another one.
    """

    name: Name
    suite: Name = "editversebench"
    data: str
    methods: Annotated[dict[Name, str], Field(min_length=2)]
    design: Literal["balanced", "star"] = "balanced"
    center: str | None = None
    pairs: Annotated[int, Field(ge=1)] = 1000
    raters: Annotated[int, Field(ge=1, le=10_000)] = 20
    raters_per_pair: Annotated[int, Field(ge=1)] = 3
    practice: Annotated[int, Field(ge=0)] = 2
    gold_ties: Annotated[int, Field(ge=0)] = 2
    gold_losses: Annotated[int, Field(ge=0)] = 4
    repeats: Annotated[int, Field(ge=0)] = 5
    questions: Annotated[tuple[Question, ...], Field(min_length=1)] = QUESTIONS
    exclusion: Exclusion = Exclusion()
    height: Annotated[int, Field(ge=16, le=2160, multiple_of=2)] = 480
    fps: Annotated[float, Field(gt=0, le=120)] | None = None
    max_seconds: Annotated[float, Field(gt=0, le=600)] = 20.0
    seed: int = 0
    language: Name = "en"

    @model_validator(mode="after")
    def _consistent(self) -> StudyDefinition:
        ids = [question.id for question in self.questions]
        if len(set(ids)) < len(ids):
            raise ValueError("questions: two have the same id")
        if self.raters_per_pair > self.raters:
            raise ValueError(f"raters_per_pair: {self.raters_per_pair} are more than {self.raters} raters")
        if self.design == "star" and self.center not in self.methods:
            raise ValueError(f"center: a star needs one of the methods: {', '.join(self.methods)}")
        if self.design == "balanced" and self.center is not None:
            raise ValueError("center: only a star has one")
        return self


def read_definition(path: Path) -> StudyDefinition:
    """A definition from its YAML file; BenchmarkError names the file and the field at fault."""
    try:
        return StudyDefinition.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "definition"
        message = first["msg"].removeprefix("Value error, ")
        raise BenchmarkError(f"{path}: {where}: {message}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BenchmarkError(f"{path}: {first_line(error)}") from None
