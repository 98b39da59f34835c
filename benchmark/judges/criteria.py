"""Judges that see both videos and give several grades at once: OpenVE-Bench, VIE-Bench, VEFX-Bench, IVEBench.

Each grade is a column of its own, so that it can be compared with people's; the columns of a form share one
answer. `corrected` asks by our rubric for whole numbers as JSON. `official` asks by the published prompts,
which are not ours to pass on and come from a file, and reads the answer as the published code does.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, create_model

from benchmark.core.item import Mode, Reference, RunStopped, Unscored, Worded
from benchmark.core.once import Once, content_key
from benchmark.core.score_cache import address
from benchmark.judges.asking import ATTEMPTS, Asked, answered
from benchmark.judges.wording import PROMPTS, Reason, read_prompts
from curation.vlm.client import Answer, ask_json
from curation.vlm.exchange import asking
from curation.vlm.interface import AnnotatorError

RUBRIC = PROMPTS / "criteria.txt"

Grades = dict[str, float]


def by_lines(text: str, form: Form) -> Grades | str:
    """Grades of lines such as `Instruction Compliance: 4`, the last one of each name; or what is wrong.

    As `check_format` of showlab/Kiwi-Edit, eval_openve_gemini.py: a number is cut to its whole part.
    """
    found: Grades = {}
    for line in text.splitlines():
        for name, heading in form.headings.items():
            if line.startswith(f"{heading}:"):
                told = line.split(":")[-1].strip()
                if not re.fullmatch(r"[+-]?[0-9]{1,4}(\.[0-9]{0,8})?", told):
                    return f"{heading} is {told[:40]!r}"
                found[name] = float(int(float(told)))
                if not form.low <= found[name] <= form.high:
                    return f"{heading} is {told[:40]!r}, not from {form.low} to {form.high}"
    missing = [heading for name, heading in form.headings.items() if name not in found]
    return f"no line {missing[0]!r}" if missing else found


def by_brackets(text: str, form: Form) -> Grades | str:
    """The grade in an answer such as `[4] [because ...]`; or what is wrong.

    As `_parse_score` of RyanChenYN/IVEBench: brackets, then a number with a scale, then a digit from 1 to 5.
    """
    (name,) = form.headings
    for pattern in (
        r"\[([1-5])\]",
        r"([1-5])(?:\s*score|\s*/5|\s*out\s*of\s*5)",
        r"([0-9]+(?:\.[0-9]+)?)\s*[/score]",
        r"([1-5])",
    ):
        matches = re.findall(pattern, text)
        if matches and len(matches[0]) < 9 and form.low <= float(matches[0]) <= form.high:
            return {name: float(matches[0])}
    return "no grade in it"


@dataclass(frozen=True)
class Form:
    """What one kind of judge is asked.

    Attributes:
        headings: what a published answer calls each criterion, by our name of it.
        asks: our wording of each criterion.
        low, high: of every grade.
        capped: no grade is to be above the first.
        read: the published reading of an answer; None where no wording is published.
        prompts: what the file of published prompts is made of, for whoever has to make it.
    """

    headings: Mapping[str, str]
    asks: Mapping[str, str]
    low: int
    high: int
    capped: bool = False
    read: Callable[[str, Form], Grades | str] | None = None
    prompts: str = ""


FOLLOWS = "was done what was asked, to what was meant, all of it and in every frame?"
KEEPS = "is everything that the instruction does not speak of as it was, its motion too?"
LOOKS = "does it look like a real, clean video, without seams, flicker or broken shapes?"

FORMS = {
    "openve": Form(
        {
            "instruction": "Instruction Compliance",
            "quality": "Visual Quality & Stability",
            "consistency": "Consistency & Detail Fidelity",
        },
        {"instruction": FOLLOWS, "quality": LOOKS, "consistency": KEEPS},
        1,
        5,
        True,
        by_lines,
        "by kind of edit with {edit_prompt} in them, as in eval_openve_gemini.py of showlab/Kiwi-Edit",
    ),
    "vie_bench": Form(
        {"instruction": "Instruction", "preservation": "Preservation", "quality": "Quality"},
        {"instruction": FOLLOWS, "preservation": KEEPS, "quality": LOOKS},
        1,
        10,
        False,
        by_lines,
        "by kind of edit, or one called `all`, with {edit_prompt} in it",
    ),
    "vefx": Form(
        {"if": "", "rq": "", "ee": ""},
        {"if": FOLLOWS, "rq": LOOKS, "ee": KEEPS},
        1,
        4,
    ),
    "instruction_satisfaction": Form(
        {"": ""},
        {"": FOLLOWS},
        1,
        5,
        False,
        by_brackets,
        "called `all`, with {edit_prompt} in it, as in instruction_satisfaction.py of RyanChenYN/IVEBench",
    ),
    "content_fidelity": Form(
        {"": ""},
        {"": KEEPS},
        1,
        5,
        False,
        by_brackets,
        "called `all`, with {edit_prompt} in it, as in content_fidelity.py of RyanChenYN/IVEBench",
    ),
}


@dataclass(frozen=True)
class Criterion:
    """One grade of a form, by a model that sees source and result as videos.

    Args:
        model: a `Vlm`, such as `curation.vlm.endpoint.Endpoint`, which samples frames as it is told to.
        form: a name in `FORMS`; criterion: one of its criteria, "" where it has one alone.
        prompts: JSON file of the published prompts.
    """

    model: Asked
    form: str
    criterion: str = ""
    prompts: str | None = None
    mode: Mode = "corrected"
    unit: str = ""
    higher_is_better: bool = True
    version: int = 1
    range: ClassVar[tuple[float, float]] = (1.0, 10.0)
    waits: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("instruction", "kind")

    def __post_init__(self) -> None:
        form = FORMS.get(self.form)
        if form is None:
            raise RunStopped(f"judge: no form {self.form!r}; there are {', '.join(FORMS)}")
        if self.criterion not in form.headings:
            raise RunStopped(
                f"judge: {self.form} has no {self.criterion!r}; it has {', '.join(form.headings)}"
            )
        object.__setattr__(self, "range", (float(form.low), float(form.high)))
        if self.mode == "official" and form.read is None:
            raise RunStopped(
                f"judge: no wording of {self.form} is published; its official scores are a reward model's"
            )
        if self.mode == "official" and self.prompts is None:
            raise RunStopped(
                f"judge: the official mode of {self.form} needs the published prompts; name by `prompts` a "
                f"JSON file of them, {form.prompts}"
            )

    @property
    def name(self) -> str:
        """The column: the form, and the criterion where there are several."""
        return f"{self.form}_{self.criterion}" if self.criterion else self.form

    @property
    def label(self) -> str:
        """The column's heading."""
        return self.name.replace("_", " ")

    @cached_property
    def published(self) -> Mapping[str, str]:
        """Prompts by kind of edit."""
        return read_prompts(self.prompts or "", "prompts by kind of edit")

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        instruction, kind = (reference.prompts.get(name, "") for name in ("instruction", "kind"))
        if not instruction:
            return Unscored("the item has no instruction")
        text = self._text(instruction, kind)
        if text is None:
            return Unscored(f"{self.prompts} has no prompt for {kind!r}")
        key = (id(self.model), self.form, self.mode, text, content_key(result))
        told = ANSWERS.once(reference, key, lambda: self._ask(reference.original, result, text))
        return told.take(self.criterion)

    def _text(self, instruction: str, kind: str) -> str | None:
        form = FORMS[self.form]
        if self.mode == "official" or self.prompts is not None:
            prompt = self.published.get(kind, self.published.get("all"))
            return None if prompt is None else prompt.replace("{edit_prompt}", instruction)
        listed = "\n".join(f"{name or 'grade'}: {asked}" for name, asked in form.asks.items())
        if form.capped:
            listed += f"\n\nNo grade may be higher than {next(iter(form.asks))}."
        text = RUBRIC.read_text(encoding="utf-8").replace("{low}", str(form.low))
        text = text.replace("{high}", str(form.high)).replace("{criteria}", listed)
        return text.replace("{instruction}", instruction)

    def _ask(self, source: np.ndarray, result: np.ndarray, text: str) -> Told:
        """Every grade of the form, by one answer."""
        form, grades = FORMS[self.form], Grades()

        def grade() -> Worded:
            ask = self._own if self.prompts is None else self._official
            found, words = ask([source, result], text)
            grades.update(found)
            return Worded(next(iter(grades.values())), words)

        # one answer for all columns: what was of no use to one is of none to another
        reader = address("form", self.form, self.mode, self.version)[:16]
        with asking(reader=reader):
            first = answered(grade)
        if form.capped and self.mode == "corrected" and grades:
            top = next(iter(grades.values()))
            grades = {name: min(value, top) for name, value in grades.items()}
        return Told(first, grades)

    def _own(self, media: list[np.ndarray], text: str) -> tuple[Grades, str]:
        form = FORMS[self.form]
        whole = Annotated[int, Field(ge=form.low, le=form.high, strict=True)]
        fields: dict[str, Any] = {name or "grade": (whole, ...) for name in form.headings}
        kind: type[Answer] = create_model("Grades", __base__=Answer, **fields, reason=(Reason, ""))
        told = ask_json(self.model, media, text, kind, ATTEMPTS)  # type: ignore[arg-type]
        return {name: float(getattr(told, name or "grade")) for name in form.headings}, told.model_dump_json()

    def _official(self, media: list[np.ndarray], text: str) -> tuple[Grades, str]:
        form = FORMS[self.form]
        wrong = told = ""
        for _ in range(ATTEMPTS):
            told = self.model.ask(media, text)
            found = form.read(told, form) if form.read else ""
            if not isinstance(found, str):
                return found, told
            wrong = found
        raise AnnotatorError(f"no grades in {ATTEMPTS} answers; the last: {wrong}: {told[:80]!r}")


class Told:
    """An answer's grades, or why there are none; what asking took is told once, with the first taken."""

    def __init__(self, first: Worded | Unscored, grades: Grades) -> None:
        self._first, self._grades, self._usage = first, grades, dict(first.usage)
        self._lock = threading.Lock()

    def take(self, criterion: str) -> Worded | Unscored:
        """One of the grades."""
        with self._lock:
            usage, self._usage = self._usage, {}
        if isinstance(self._first, Unscored):
            return replace(self._first, usage=usage)
        return Worded(self._grades[criterion], self._first.words, usage)


ANSWERS: Once[Told] = Once()
