"""What a run's folder says for its model card: data and their licences, recipe, code, results, scores."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.config import load_config
from model.data.batch import data_fingerprint
from model.data.mixture import DatasetConfig
from model.data.row_samples import RowSamples
from model.inference.model_card import ModelCard, card_of_model, licence_of_base, table
from shards.errors import ConfigError, EditVerseError, first_line
from shards.files import write_json
from shards.limits import read_json
from shards.reader import ShardSet
from shards.serialization import from_dict

PROVENANCE = "provenance.json"  # of a run: its code, and where its data lay
UNKNOWN = "unknown"


def record_provenance(run: Path, rows: Mapping[str, DatasetConfig]) -> None:
    """Write which code trains, and on which folders; the card of the finished run is filled from them."""
    data = {
        name: {
            "shards": list(row.shards),
            "tasks": list(row.tasks),
            "masked": row.masked,
            **({"min_scores": row.min_scores} if row.min_scores else {}),
            **({"max_scores": row.max_scores} if row.max_scores else {}),
        }
        for name, row in rows.items()
    }
    write_json(run / PROVENANCE, {"code": code_version(), "data": data})


def code_version() -> dict[str, Any]:
    """Version of this project; from a checkout also its commit, and whether files differ from it."""
    root = Path(__file__).resolve().parents[2]
    version: dict[str, Any] = {"version": importlib.metadata.version("editverse"), "commit": None}
    if not (root / ".git").exists():  # a repository further up would be another project's
        return version
    try:
        words = [["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *w], capture_output=True, text=True, check=True, timeout=60
            ).stdout.strip()
            for w in words
        )
    except (OSError, subprocess.SubprocessError):
        return version
    return version | {"commit": commit, "modified": bool(changes)}


def count_licences(rows: Mapping[str, DatasetConfig]) -> Counter[tuple[str, str, str]]:
    """Training samples by (row, task, licence of the clip that they come from), by their provenance."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for name, row in rows.items():
        samples = RowSamples(row, [ShardSet(folder, "train") for folder in row.shards])
        for index in range(len(samples)):
            shards, number = samples.locate(index)
            task = shards.entry(number).task
            counts[name, task, shards.sample(number).provenance.clip.license] += 1
    return counts


def run_card(
    run: Path, license: str | None = None, datasets: tuple[str, ...] = (), adapter: bool = False
) -> ModelCard:
    """The card of a finished run, or of one that is under way.

    Args:
        license: of the weights; that of a known base when None.
        datasets: `owner/name` of its data sets on the hub.
        adapter: an adapter alone is published.

    Raises:
        ConfigError: the folder is no run's, or one of its files cannot be read.
    """
    record = _read(run / "run.json")
    config: dict[str, Any] = record.get("config") or {}
    train: dict[str, Any] = config.get("train") or {}
    base, through = _origin(train.get("init_from") or "")
    on_hub = bool(re.fullmatch(r"[\w.-]+/[\w.-]+", base)) and not Path(base).exists()
    card = card_of_model(load_config(run / "model.json")) if (run / "model.json").is_file() else ModelCard()
    known = licence_of_base(base)
    about = f"Started from {_public(base)}" if base else "Trained from random weights"
    if through:
        about += f", by way of {', '.join(Path(folder).name for folder in through)}"
    about += f" ({known})." if known else ", whose licence is not known here." if base else "."
    sections = [
        ("Base", about),
        ("Data", _data_section(run, record.get("data") or {})),
        ("Recipe", _recipe_section(run, config)),
        ("Results", _results_section(run)),
    ]
    return replace(
        card,
        license=license or known or UNKNOWN,
        base=base if on_hub else None,
        adapter=adapter,
        datasets=datasets,
        sections=tuple((heading, text) for heading, text in sections if text),
    )


def _origin(start: str) -> tuple[str, list[str]]:
    """What the first of the trainings before this one started from, and their folders, oldest first."""
    through: list[str] = []
    while start and start not in through:
        folders = [Path(start), Path(start).parent] if Path(start).is_dir() else []
        run = next((folder for folder in folders if (folder / "run.json").is_file()), None)
        if run is None:
            break
        through.insert(0, str(run))
        config = _read(run / "run.json").get("config") or {}
        start = (config.get("train") or {}).get("init_from") or ""
    return start, through


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; the card is filled from a run's folder (--run)"
        ) from error
    except EditVerseError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected an object")
    return value


def _public(value: Any) -> Any:
    """A copy of JSON values in which a path of this machine is its last name."""
    if isinstance(value, dict):
        return {name: _public(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def _data_section(run: Path, recorded: dict[str, Any]) -> str:
    """Rows with their fingerprints, and samples by licence; or why these were not counted."""
    lines = [
        (name, ", ".join(row.get("tasks") or ["all"]), f"{row.get('ratio', 1):g}", row.get("shards", "")[:12])
        for name, row in recorded.items()
    ]
    text = table(("row", "tasks", "visits per epoch", "sha256 of its shards"), lines)
    try:
        rows = _rows(run)
        for name, now in data_fingerprint(rows).items():
            if now["shards"] != recorded.get(name, {}).get("shards"):
                raise ConfigError(f"the folders of row {name} hold other shards now")
        counts = count_licences(rows)
    except (EditVerseError, OSError) as error:
        return f"{text}\nThe samples' licences were not counted: {_shortened(first_line(error))}.\n"
    total = Counter[str]()
    for (_, _, licence), count in counts.items():
        total[licence] += count
    text += (
        f"\n{sum(total.values())} training samples, by the licence of the clips that they were made from:\n\n"
    )
    text += table(("licence", "samples"), total.most_common())
    details = [(row, task, licence, count) for (row, task, licence), count in sorted(counts.items())]
    text += "\n" + table(("row", "task", "licence", "samples"), details)
    if UNKNOWN in total:
        text += f"\nFor {total[UNKNOWN]} samples no licence is recorded.\n"
    return text


def _shortened(reason: str) -> str:
    """A reason without the folders of this machine."""
    return re.sub(r"(?<![\w.])/\S*/(?=\S)", "", reason)


def _rows(run: Path) -> dict[str, DatasetConfig]:
    """The run's data sets with the folders that it recorded."""
    data = _read(run / PROVENANCE).get("data")
    if not isinstance(data, dict):
        raise ConfigError(f"{run / PROVENANCE}: data is no list of folders by row")
    return {
        name: from_dict(DatasetConfig, row, f"{run / PROVENANCE}: data.{name}") for name, row in data.items()
    }


def _recipe_section(run: Path, config: dict[str, Any]) -> str:
    import yaml

    settings = {name: value for name, value in _public(config).items() if name != "model" and value}
    text = f"```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```\n"
    code = _read(run / PROVENANCE).get("code", {}) if (run / PROVENANCE).is_file() else {}
    if code.get("commit"):
        changed = ", with changes" if code.get("modified") else ""
        text += f"\nTrained with EditVerse {code.get('version')}, commit `{code['commit']}`{changed}.\n"
    elif code:
        text += f"\nTrained with EditVerse {code.get('version')}; the commit is not recorded.\n"
    return text


def _results_section(run: Path) -> str:
    """Lengths and losses of the finished run, and scores of benchmarks in its folder."""
    text = ""
    if (run / "summary.json").is_file():
        summary = _read(run / "summary.json")
        names = ("steps", "samples", "tokens", "parameters", "first_loss", "last_loss", "seconds")
        rows = [(name.replace("_", " "), _number(summary[name])) for name in names if name in summary]
        text += table(("training", ""), rows)
    for file in sorted(run.glob("*/summary.json")):
        scores = _read(file)
        if isinstance(scores.get("suite"), dict) and isinstance(scores.get("table"), dict):
            text += f"\n{_scores(scores)}"
    return text


def _scores(summary: dict[str, Any]) -> str:
    """The means of a benchmark's run over all its items, with their intervals."""
    suite, rows = summary["suite"], summary["table"].get("all") or {}
    metrics = list(summary.get("metrics") or {})
    sha = str(summary.get("checkpoint_sha256") or "")[:12]
    text = f"{suite.get('name')} (version {suite.get('version')}), {summary.get('items')} items"
    text += f", weights {sha}:\n\n" if sha else ":\n\n"
    return text + table(
        ("", *metrics), [(row, *(_cell(of.get(metric)) for metric in metrics)) for row, of in rows.items()]
    )


def _cell(mean: Any) -> str:
    if not isinstance(mean, dict) or mean.get("value") is None:
        return "-"
    interval = "" if mean.get("low") is None else f" ({_number(mean['low'])} to {_number(mean['high'])})"
    return f"{_number(mean['value'])}{interval}"


def _number(value: Any) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )
