"""The commands that choose samples: `label`, `calibrate`, `filter`, `retention`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curation.quality.selection.calibration import calibrate
from curation.quality.selection.calibration_report import RULES, print_calibration, write_calibration
from curation.quality.selection.filter import MAX_SAMPLES, REJECTED, filter_shards
from curation.quality.selection.label_page import REASONS, Labelling, label_site
from curation.quality.selection.labels import LabelFile
from curation.quality.selection.retention import print_retention, read_retention
from curation.quality.selection.rules import read_rules
from shards.errors import SettingError
from shards.files import exclusive
from shards.reports.pages import Samples
from shards.reports.server import Server, needs_pages


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


def label(
    shards: str,
    labels: Path | None = None,
    reasons: tuple[str, ...] = REASONS,
    overlap: float = 0.1,
    people: int = 2,
    host: str = "127.0.0.1",
    port: int = 7870,
) -> None:
    """Serve a page on which people say which samples to keep, and why not the others.

    Args:
        shards: folder or URL of shards.
        labels: JSONL file that labels are added to; <shards>-labels.jsonl when left out.
        reasons: at most eight, for the keys 2 to 9.
        overlap: share of the samples that several people label, which tells how far they agree.
        people: who label those.
        host: address to listen at; whoever reaches it may label. 127.0.0.1 is this machine alone.
        port: of the page; 0 for any that is free.
    """
    needs_pages()
    path = labels or Path(f"{_beside(shards, 'labels')}.jsonl")
    with exclusive(path.parent, "--labels", f".{path.name}.lock"):
        site = label_site(Labelling(Samples([shards]), LabelFile(path), reasons, overlap, people))
        server = Server(site, host, port)
        print(f"{server.url}  (Ctrl-C ends it; labels go to {path})", flush=True)
        server.run()


def calibrate_rules(
    shards: str,
    labels: Path | None = None,
    out: str | None = None,
    precision: float | None = None,
    keep_clean: float | None = None,
    scores: tuple[str, ...] = (),
) -> None:
    """Propose the rules of a filter from labelled samples and stored scores, and say how good they are.

    Args:
        shards: folder or URL of shards, graded.
        labels: JSONL file that `label` wrote.
        out: folder for rules.yaml, calibration.json and calibration.svg; <shards>-calibration when left out.
        precision: share of clean samples wanted among the kept, such as 0.95, with as many kept as can be.
        keep_clean: share of the clean samples to keep instead; 0.95 when neither is given.
        scores: names of those that may be used; all when left out.
    """
    if labels is None:
        raise SettingError("--labels: name a JSONL file of labels; `python -m curation label` writes one")
    folder = Path(out or _beside(shards, "calibration"))
    calibration, labelled = calibrate(shards, labels, precision, keep_clean, scores)
    write_calibration(folder, calibration, labelled)
    print_calibration(calibration)
    print(f"{folder / RULES}: for `python -m curation filter {shards} --rules {folder / RULES}`")


COMMANDS: dict[str, Callable[..., None]] = {
    "label": label,
    "calibrate": calibrate_rules,
    "filter": filter_samples,
    "retention": retention,
}
