"""How much of a data set a filter kept: per task in the form of the paper's Table 1, source and criterion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from rich.table import Table

from curation.quality.selection.rules import Verdicts
from shards.errors import ConfigError
from shards.files import write_bytes, write_json
from shards.limits import read_bytes
from shards.sample import Strict, explain
from shards.terminal import print_table

REPORT = "retention.json"
SHOWN = 20  # sources that are printed; the others are one line


class Share(Strict):
    """Samples before a filter and those that it kept."""

    candidates: int = 0
    retained: int = 0

    @property
    def share(self) -> float:
        """What was kept, from 0 to 1."""
        return self.retained / max(1, self.candidates)


class Criterion(Strict):
    """What one rule did.

    Attributes:
        failed: samples that fail it. alone: those that fail no other. missing: those whose score is null.
    """

    failed: int = 0
    alone: int = 0
    missing: int = 0


class Retention(Strict):
    """The report of a filter.

    Attributes:
        source: the folder that was filtered. rules: sha256 of the rules.
        tasks: by medium of the target ("image", "video") and task.
        sources: by where samples come from, most candidates first.
        criteria: by rule, as one reads it.
    """

    source: str
    rules: str
    total: Share
    tasks: dict[str, dict[str, Share]] = Field(default_factory=dict)
    splits: dict[str, Share] = Field(default_factory=dict)
    sources: dict[str, Share] = Field(default_factory=dict)
    criteria: dict[str, Criterion] = Field(default_factory=dict)


def retention_of(
    source: str,
    config: str,
    verdicts: Verdicts,
    media: NDArray[np.str_],
    tasks: NDArray[np.str_],
    splits: NDArray[np.str_],
    sources: NDArray[np.str_],
) -> Retention:
    """Count what the rules kept; the arrays are str [samples]."""
    kept = verdicts.kept
    by_task: dict[str, dict[str, Share]] = {}
    for medium in np.unique(media).tolist():
        by_task[medium] = _shares(tasks[media == medium], kept[media == medium])
    failures = verdicts.failed.sum(axis=0)
    criteria = {
        rule.words(score): Criterion(
            failed=int(failed.sum()), alone=int((failed & (failures == 1)).sum()), missing=int(null.sum())
        )
        for (score, rule), failed, null in zip(
            verdicts.criteria, verdicts.failed, verdicts.missing, strict=True
        )
    }
    by_source = sorted(_shares(sources, kept).items(), key=lambda item: (-item[1].candidates, item[0]))
    return Retention(
        source=source,
        rules=config,
        total=Share(candidates=len(kept), retained=int(kept.sum())),
        tasks=by_task,
        splits=_shares(splits, kept),
        sources=dict(by_source),
        criteria=criteria,
    )


def _shares(names: NDArray[np.str_], kept: NDArray[np.bool_]) -> dict[str, Share]:
    before, after = Counter(names.tolist()), Counter(names[kept].tolist())
    return {name: Share(candidates=before[name], retained=after[name]) for name in sorted(before)}


def short(number: int) -> str:
    """A count as the paper's Table 1 has it: `56K`, `1.2M`."""
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            value = number / unit
            return f"{value:.1f}".removesuffix(".0") + letter if value < 10 else f"{value:.0f}{letter}"
    return str(number)


def samples_cell(share: Share) -> str:
    """`56K(2M*)`: what is left, and what there was before filtering where that is more."""
    before = f"({short(share.candidates)}*)" if share.candidates > share.retained else ""
    return short(share.retained) + before


def write_retention(folder: Path, retention: Retention) -> None:
    """Write `retention.json` and `retention.md` into a folder."""
    write_json(folder / REPORT, retention.model_dump(mode="json"))
    write_bytes(folder / "retention.md", markdown(retention).encode())


def read_retention(folder: str | Path) -> Retention:
    """The report of a filtered folder; raises ConfigError where there is none that can be read."""
    path = Path(folder) / REPORT
    try:
        return Retention.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; `python -m curation filter` writes it") from None
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None


def tables(retention: Retention) -> Iterator[tuple[str, Sequence[str], list[list[str]]]]:
    """Title, head and rows of each table of the report."""
    head = ("#samples", "candidates", "retained", "share")
    rows = [
        [medium if number == 0 else "", task, *_cells(share)]
        for medium, tasks in retention.tasks.items()
        for number, (task, share) in enumerate(tasks.items())
    ]
    rows.append(["all", "", *_cells(retention.total)])
    yield "Samples by task (* before filtering)", ("medium", "task", *head), rows
    sources = list(retention.sources.items())
    rows = [[name, *_cells(share)] for name, share in sources[:SHOWN]]
    if rest := [share for _, share in sources[SHOWN:]]:
        total = Share(candidates=sum(s.candidates for s in rest), retained=sum(s.retained for s in rest))
        rows.append([f"{len(rest)} more", *_cells(total)])
    yield "Samples by source (* before filtering)", ("source", *head), rows
    rows = [
        [name, f"{one.failed:,}", f"{one.alone:,}", f"{one.missing:,}"]
        for name, one in retention.criteria.items()
    ]
    yield "Samples by criterion", ("kept where", "fail it", "fail it alone", "null"), rows


def _cells(share: Share) -> list[str]:
    return [samples_cell(share), f"{share.candidates:,}", f"{share.retained:,}", f"{100 * share.share:.1f} %"]


def print_retention(retention: Retention) -> None:
    """Print the report to stdout."""
    for title, head, rows in tables(retention):
        table = Table(title=title, title_justify="left")
        for name in head:
            words = name in ("medium", "task", "source", "kept where")
            table.add_column(name, justify="left" if words else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        print_table(table)


def markdown(retention: Retention) -> str:
    """The report as Markdown."""
    parts = [f"# What is kept of `{retention.source}`\n"]
    for title, head, rows in tables(retention):
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        parts.append(f"{title}:\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)
