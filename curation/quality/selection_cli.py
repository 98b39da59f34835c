"""The commands that choose samples: `label`, `calibrate`, `filter`, `retention`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curation.quality.filter import MAX_SAMPLES, REJECTED, filter_shards
from curation.quality.retention import print_retention, read_retention
from curation.quality.rules import read_rules
from shards.errors import SettingError


def filter_samples(
    shards: str,
    rules: Path | None = None,
    out: str | None = None,
    max_samples: int = MAX_SAMPLES,
    report_only: bool = False,
) -> None:
    """Write the samples whose stored scores pass the rules as new shards, and report what is kept.

    Args:
        shards: folder or URL of shards; `grade` measures and stores what the rules need.
        rules: YAML file of rules; `calibrate` proposes one.
        out: folder for the new shards, rejected.jsonl and the report; <shards>-filtered when left out.
        max_samples: of a shard.
        report_only: write the report and rejected.jsonl, and no shards.
    """
    if rules is None:
        raise SettingError("--rules: name a YAML file of rules; `python -m curation calibrate` proposes one")
    if max_samples < 1:
        raise SettingError(f"--max_samples {max_samples}: needs at least 1")
    out = out or _beside(shards, "filtered")
    retention = filter_shards(shards, read_rules(rules), out, max_samples, report_only=report_only)
    print_retention(retention)
    print(f"{out}: {retention.total.retained:,} samples; {Path(out) / REJECTED} names the others")


def retention(folder: str) -> None:
    """Print the report of a filter again.

    Args:
        folder: that `filter` wrote.
    """
    print_retention(read_retention(folder))


def _beside(shards: str, what: str) -> str:
    """A folder for a result, beside the shards; raises SettingError where they lie behind a URL."""
    if "://" in shards:
        raise SettingError(f"--out: name a folder; {shards} is a URL, and nothing is written beside it")
    return f"{shards.rstrip('/')}-{what}"


COMMANDS: dict[str, Callable[..., None]] = {"filter": filter_samples, "retention": retention}
