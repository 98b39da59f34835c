"""GenEval (Ghosh et al. 2023): 553 prompts of six tasks, four pictures each, checked by a detector.

Run their `evaluation/evaluate_images.py` on what `generate` made; `collect` reads its `results.jsonl`.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmark.core.item import BenchmarkError
from benchmark.external import Collected, GenerationRequest
from benchmark.statistics.intervals import mean_interval
from shards.errors import EditVerseError
from shards.files import write_bytes
from shards.limits import parse_json, read_text

LIST = "evaluation_metadata.jsonl"
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PROMPTS, SAMPLES = 553, 4


def wanted(data: Path, out: Path, samples: int | None = None) -> list[GenerationRequest]:
    """The pictures that the program looks for, and beside them the metadata that it reads.

    Args:
        data: folder with `evaluation_metadata.jsonl`.
        samples: per prompt, four as published.
    """
    found = []
    for number, entry in enumerate(_lines(data / LIST)):
        for field in ("tag", "prompt", "include"):
            if field not in entry:
                raise BenchmarkError(f"{data / LIST}: line {number + 1} has no {field!r}")
        if not isinstance(entry["prompt"], str):
            raise BenchmarkError(f"{data / LIST}: line {number + 1}: its prompt is no text")
        folder = f"{number:05d}"
        if not (out / folder / "metadata.jsonl").is_file():
            write_bytes(out / folder / "metadata.jsonl", json.dumps(entry).encode())
        for n in range(samples or SAMPLES):
            found.append(GenerationRequest(entry["prompt"], f"{folder}/samples/{n:04d}.png", n, True))
    return found


def collect(results: Path) -> Collected:
    """Share of correct pictures by task, and GenEval's overall: the mean of the six tasks' shares.

    Intervals are clustered by prompt.
    """
    by_task: dict[str, list[tuple[float, str]]] = {}
    for number, row in enumerate(_lines(results)):
        words = row.get("tag"), row.get("prompt")
        if not isinstance(row.get("correct"), bool) or not all(isinstance(w, str) for w in words):
            raise BenchmarkError(f"{results}: line {number + 1} is no result of GenEval's program")
        by_task.setdefault(row["tag"], []).append((100.0 * row["correct"], row["prompt"]))
    parts = {
        task: mean_interval([s for s, _ in of], [prompt for _, prompt in of], bounds=(0.0, 100.0))
        for task, of in by_task.items()
    }
    remarks = [f"no pictures of the task {task}" for task in TASKS if task not in parts]
    pictures = Counter(prompt for of in by_task.values() for _, prompt in of)
    if len(pictures) != PROMPTS:
        remarks.append(f"{len(pictures)} prompts were scored, GenEval has {PROMPTS}")
    odd = sum(count % SAMPLES != 0 for count in pictures.values())
    if odd:
        remarks.append(f"{odd} prompts do not have {SAMPLES} pictures each")
    means = [parts[task].value for task in TASKS if task in parts]
    overall = None if len(means) < len(TASKS) else sum(m for m in means if m is not None) / len(TASKS)
    return Collected(parts, {"overall": overall}, remarks)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, EditVerseError) as error:
        raise BenchmarkError(f"{path}: cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line, "the line")
        except EditVerseError as error:
            raise BenchmarkError(f"{path}: line {number} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise BenchmarkError(f"{path}: line {number} is no object")
        found.append(value)
    return found
