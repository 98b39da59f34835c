"""The rules of a filter: which scores a sample needs to be kept.

```yaml
rules:
  psnr_outside: {min: 25}
  warp_ratio: {max: 1.5, missing: keep}
tasks:
  style_transfer:
    psnr_outside: null  # a style changes everything
```

A rule of a task takes the place of the rule of all tasks for the same score; `null` takes it away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from shards.errors import ConfigError, EditVerseError
from shards.hashing import digest
from shards.limits import read_yaml
from shards.sample import Strict, explain

Bools = NDArray[np.bool_]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Rule(Strict):
    """What a score must be: from `min` to `max`, both included.

    Attributes:
        min, max: in the score's unit; None is no bound, and one of them is given.
        missing: what becomes of a sample whose score is null: it could not be measured there.
    """

    min: Number | None = None
    max: Number | None = None
    missing: Literal["keep", "drop"] = "keep"

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a rule has a min, a max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def words(self, score: str) -> str:
        """The rule as one reads it, e.g. `psnr_outside >= 25`."""
        if self.max is None:
            return f"{score} >= {self.min:g}"
        return f"{score} <= {self.max:g}" if self.min is None else f"{self.min:g} <= {score} <= {self.max:g}"

    def passes(self, values: NDArray[np.floating[Any]]) -> Bools:
        """Which scores pass; bool of the shape of `values`, in which NaN is null.

        Bounds are compared as float32, which is what scores are stored as.
        """
        missing = np.isnan(values)
        kept = ~missing
        if self.min is not None:
            kept &= values >= np.float32(self.min)
        if self.max is not None:
            kept &= values <= np.float32(self.max)
        return kept | missing if self.missing == "keep" else kept


class Rules(Strict):
    """Rules by score, and those of single tasks, by task and score."""

    rules: dict[str, Rule] = Field(default_factory=dict)
    tasks: dict[str, dict[str, Rule | None]] = Field(default_factory=dict)

    def of(self, task: str) -> dict[str, Rule]:
        """The rules of a task, by score."""
        merged = {**self.rules, **self.tasks.get(task, {})}
        return {score: rule for score, rule in merged.items() if rule is not None}

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores that any task needs, sorted."""
        return tuple(sorted({*self.rules, *(s for own in self.tasks.values() for s, r in own.items() if r)}))

    @property
    def config(self) -> str:
        """`sha256:` of the rules, as a provenance has it."""
        return f"sha256:{digest(self.model_dump(mode='json'))}"


def read_rules(path: str | Path) -> Rules:
    """Read a YAML file of rules.

    Raises:
        ConfigError: it cannot be read, is none, or has no rule; the message names the file and the field.
    """
    try:
        rules = Rules.model_validate(read_yaml(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None
    except EditVerseError as error:
        raise ConfigError(str(error)) from error
    if not rules.scores:
        raise ConfigError(f"{path}: no rules; expected `rules: {{SCORE: {{min: 0.3}}}}`")
    return rules


@dataclass(frozen=True)
class Verdicts:
    """What the rules say of the samples of a folder.

    Attributes:
        criteria: each rule once, as its score and itself.
        failed: bool [criteria, samples].
        missing: bool [criteria, samples]: the rule is one of the sample's, and the score is null.
    """

    criteria: list[tuple[str, Rule]]
    failed: Bools
    missing: Bools

    @property
    def kept(self) -> Bools:
        """bool [samples]: those that fail no rule."""
        kept: Bools = ~np.any(self.failed, axis=0)
        return kept


def judge(rules: Rules, tasks: NDArray[np.str_], columns: Mapping[str, NDArray[np.float32]]) -> Verdicts:
    """Compare samples with the rules of their tasks.

    Args:
        tasks: str [samples]. columns: by score, float32 [samples], NaN for null.
    """
    criteria: dict[tuple[str, str], tuple[str, Rule]] = {}
    failed: dict[tuple[str, str], Bools] = {}
    missing: dict[tuple[str, str], Bools] = {}
    for task in np.unique(tasks).tolist():
        here = tasks == task
        for score, rule in rules.of(task).items():
            name = (score, rule.model_dump_json())
            if name not in criteria:
                criteria[name] = (score, rule)
                failed[name], missing[name] = np.zeros((2, len(tasks)), bool)
            values = np.asarray(columns[score][here])
            failed[name][here] = ~rule.passes(values)
            missing[name][here] = np.isnan(values)
    empty = np.zeros((0, len(tasks)), bool)
    return Verdicts(
        list(criteria.values()),
        np.stack([*failed.values()]) if criteria else empty,
        np.stack([*missing.values()]) if criteria else empty,
    )
