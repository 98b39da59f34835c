"""What a run says of its data: pairs made, imported, left out and kept, and under which licences.

Everything is read from the files that the commands of `curation` and `shards` wrote into the run's folder,
wherever in it they lie.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curation.quality.selection.retention import REPORT, read_retention
from shards.errors import ConfigError
from shards.limits import read_json
from shards.reports.costs import Costs, costs_of

LEDGER = "ledger.csv"
IMPORTS = "imports.json"
DEPTH = 4  # folders below the run's in which the outputs of its stages lie
# folders of files by the thousand, and of what was replaced: no stage's outputs begin in them
SKIPPED = ("workspace", "replaced", "latents", "logs", "stages", "export", "edits", "videos", "state")
MAX_CELL = 16 * 2**20  # characters of a cell of the ledger
CELL = "models"

DATA = "data"  # the folder of a run that holds its shards
Facts = dict[str, Any]


def read_object(path: Path) -> Facts:
    """A JSON object of the run; an empty one where there is no such file.

    Raises:
        ConfigError: it is damaged, or holds no object.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected an object; delete it, and run its stage again")
    return value


def folders_with(run: Path, name: str) -> Iterator[Path]:
    """The folders of a run that hold a file of this name, in order; what was replaced is left out."""
    for place, folders, files in os.walk(run):
        here = Path(place)
        deep = len(here.relative_to(run).parts) >= DEPTH
        folders[:] = [] if deep else sorted(one for one in folders if one not in SKIPPED)
        if name in files:
            yield here


def relative(run: Path, value: str) -> str:
    """A path as the report has it: one inside of the run relative to it, so that two runs' compare equal."""
    path = Path(os.path.normpath(run / value)) if "://" not in value else None
    return str(path.relative_to(run)) if path is not None and path.is_relative_to(run) else value


def curation_facts(run: Path) -> list[Facts]:
    """Of each folder of curated pairs: what went in, and what was accepted, refused and rejected."""
    found = []
    for folder in folders_with(run / DATA, "summary.json"):
        summary = read_object(folder / "summary.json")
        if not isinstance(summary.get("accepted_by_split"), dict):
            continue
        names = ("task", "files", "clips", "source_frames", "candidates", "accepted", "samples")
        facts = {name: summary.get(name) for name in names}
        facts |= {
            "folder": relative(run, str(folder)),
            "accepted_by_split": summary["accepted_by_split"],
            "refused_clips": summary.get("refused_clips", {}),
            "rejected": summary.get("rejected", {}),
            "quarantined": [str(one).replace(f"{run}/", "") for one in summary.get("quarantined", [])],
        }
        found.append(facts)
    return found


def import_facts(run: Path) -> list[Facts]:
    """Of each imported data set: its rows, those accepted, the refused by reason, and their licences."""
    found = []
    for folder in folders_with(run / DATA, "import.json"):
        summary = read_object(folder / "summary.json")
        names = ("format", "rows", "accepted", "samples", "refused", "mended", "licenses")
        facts = {name: summary.get(name) for name in names}
        facts |= {
            "folder": relative(run, str(folder)),
            "source": relative(run, str(summary.get("source", ""))),
        }
        found.append(facts)
    return found


def left_out(run: Path) -> list[Facts]:
    """Data sets of the list of imports that were not used: name, licence and reason."""
    found = []
    for folder in folders_with(run / DATA, IMPORTS):
        listed = read_object(folder / IMPORTS).get("left_out", [])
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict):
                found.append({name: str(one.get(name) or "") for name in ("name", "license", "reason")})
    return found


def gate_facts(run: Path) -> list[Facts]:
    """Of each filtered folder: how many samples its rules kept, by task, source and rule."""
    found = []
    for folder in folders_with(run / DATA, REPORT):
        facts = read_retention(folder).model_dump(mode="json")
        facts |= {"folder": relative(run, str(folder)), "source": relative(run, facts["source"])}
        found.append(facts)
    return found


def ledger_facts(run: Path) -> Facts:
    """What `ledger.csv` adds up to: samples by licence, model and whether commercial use is allowed.

    Raises:
        ConfigError: the file is damaged, or no ledger.
    """
    path = run / LEDGER
    if not path.is_file():
        return {}
    held = csv.field_size_limit(MAX_CELL)
    counts: dict[str, Counter[Any]] = {name: Counter() for name in ("folders", "clips", "uses", CELL)}
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                counts["folders"][relative(run, row["folder"])] += 1
                counts["clips"][row["clip_license"]] += 1
                counts["uses"][row["commercial"], row["reason"]] += 1
                counts[CELL][row[CELL]] += 1
        models: Counter[tuple[str, str]] = Counter()
        for cell, count in counts[CELL].items():
            steps = json.loads(cell)
            for name in {(step["model"] or step["backend"], step["license"]) for step in steps}:
                models[name] += count
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ConfigError(f"{path}: damaged ({error}); `python -m shards ledger` writes it again") from None
    finally:
        csv.field_size_limit(held)
    return {
        "samples": counts["folders"].total(),
        "folders": _ordered(counts["folders"]),
        "clip_licenses": _ordered(counts["clips"]),
        "models": [
            {"model": name, "license": license, "samples": count}
            for (name, license), count in sorted(models.items(), key=lambda item: (-item[1], item[0]))
        ],
        "commercial_use": [
            {"use": use, "reason": reason, "samples": count}
            for (use, reason), count in sorted(counts["uses"].items(), key=lambda item: (-item[1], item[0]))
        ],
    }


def commercial_use(ledger: Mapping[str, Any]) -> str:
    """Whether all samples of a ledger may be used commercially: yes, no or unknown; no as soon as one is."""
    uses = {one["use"] for one in ledger.get("commercial_use", [])}
    return next((use for use in ("no", "unknown", "yes") if use in uses), "unknown")


def pair_costs(run: Path, curated: list[Facts]) -> list[Costs]:
    """What the pairs of each curated folder cost, stage by stage, as its run noted it."""
    found = [costs_of(str(run / facts["folder"])) for facts in curated]
    return [costs for costs in found if costs is not None]


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
