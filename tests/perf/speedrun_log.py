"""The log of a run in docs/speedrun.md: `python -m tests.perf.speedrun_log runs/speedrun-tiny`.

Of a run that has a report it prints the tables as Markdown, and draws docs/speedrun-pairs.jpg,
speedrun-refused.jpg and speedrun-edits.jpg.
"""

from __future__ import annotations

import base64
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from editverse.speedrun.report.data import read_object
from editverse.speedrun.report.pictures import edits, pair_frame, refused_by_gates
from editverse.speedrun.report.words import duration, number, words_of
from shards.files import write_bytes
from shards.media import resize
from shards.reader import ShardSet

DOCS = Path(__file__).parents[2] / "docs"
WIDTH, COLUMNS, LINES = 300, 3, 2
LETTER = 6.5  # pixels
EDITS = 8  # items of the picture, spread over the suites
QUALITY = 80


def cell(frame: np.ndarray, text: str, width: int = WIDTH) -> np.ndarray:
    """A picture, uint8 RGB [H, W, 3], above its caption."""
    picture = resize(frame, (round(frame.shape[0] * width / frame.shape[1]), width))
    bar = np.full((14 * LINES + 4, width, 3), 255, np.uint8)
    for place, line in enumerate(textwrap.wrap(text, int(width / LETTER))[:LINES]):
        at = (2, 12 + 14 * place)
        cv2.putText(bar, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (40, 40, 40), 1, cv2.LINE_AA)
    return np.vstack([picture, bar])


def grid(cells: list[np.ndarray], columns: int) -> np.ndarray:
    """Cells of one width in rows, white between them."""
    tallest = max(one.shape[0] for one in cells)
    cells = [np.pad(one, ((0, tallest - len(one)), (0, 8), (0, 0)), constant_values=255) for one in cells]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[at : at + columns]) for at in range(0, len(cells), columns)])


def save(name: str, picture: np.ndarray) -> None:
    """Write a JPEG of the documentation."""
    swapped = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    write_bytes(DOCS / name, cv2.imencode(".jpg", swapped, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


def words(text: str) -> str:
    """An instruction without its tags."""
    return " ".join(text.replace("<video1>", "").replace("<video2>", "").split())


def draw_pairs(run: Path, folders: list[str]) -> None:
    """A pair of each folder that no mask is given of; from its middle on, the first such."""
    cells = []
    for folder in folders:
        shards = ShardSet(run / folder)
        order = [*range(len(shards) // 2, len(shards)), *range(len(shards) // 2)]
        removals = [n for n in order if shards.entry(n).task != "object_addition"] or order
        number = next((n for n in removals if "<mask>" not in shards.sample(n).text), removals[0])
        text = words(shards.sample(number).text)
        cells.append(cell(pair_frame(shards[number]), f"{folder.removeprefix('data/')}: {text}"))
    save("speedrun-pairs.jpg", grid(cells, COLUMNS))


def draw_refused(run: Path, gates: list[dict[str, Any]]) -> None:
    """Samples that gates refused, with the rule."""
    cells = []
    for gate in gates:
        for one in refused_by_gates(run / gate["folder"], run / gate["source"], 2 * COLUMNS // len(gates)):
            rule = one.caption.rpartition(": not ")[2]
            cells.append(cell(decoded(one.src), f"{gate['source'].removeprefix('data/')}: not {rule}"))
    save("speedrun-refused.jpg", grid(cells, COLUMNS))


def draw_edits(run: Path, suites: list[dict[str, Any]]) -> None:
    """Held-out items: the source, every editor's edit, the target."""
    rows: list[np.ndarray] = []
    columns = 1
    for suite in suites:
        for strip in edits(run, suite, max(1, EDITS // len(suites))):
            columns = len(strip.pictures)
            captions = [f"{one.caption}: {words(strip.text)}" for one in strip.pictures[:1]]
            captions += [one.caption for one in strip.pictures[1:]]
            rows += [
                cell(decoded(one.src), text, 180) for one, text in zip(strip.pictures, captions, strict=True)
            ]
    save("speedrun-edits.jpg", grid(rows, columns))


def decoded(url: str) -> np.ndarray:
    """The picture of a data URL, uint8 RGB [H, W, 3]."""
    data = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def tables(facts: dict[str, Any]) -> list[str]:
    """Stages with their bill; pairs and gates with what was refused; means of the held-out scores."""
    result, costs = facts["result"], facts["costs"]
    lines = {one["stage"]: one["line"] for one in result["stages"]}
    out = ["| stage | what came out | took | cores | bill | took / bill |", "|---|---|---|---|---|---|"]
    for one in [*costs["stages"], {"stage": "all", **costs["total"]}]:
        ratio = "-" if one["ratio"]["seconds"] is None else f"{one['ratio']['seconds']:.2f}"
        took, billed = one["took"], one["billed"]
        times = [duration(v) for v in (took["seconds"], took["cpu_seconds"], billed["seconds"])]
        out.append(f"| {' | '.join([one['stage'], lines.get(one['stage'], ''), *times, ratio])} |")
    out += ["", "| pairs | candidates | accepted | refused |", "|---|---|---|---|"]
    for one in result["curation"]:
        out.append(
            _row(one["folder"], one["candidates"], one["accepted"], one["refused_clips"] | one["rejected"])
        )
    for one in result["imports"]:
        out.append(_row(one["folder"], one["rows"], one["accepted"], one["refused"]))
    out += ["", "| gates | samples | kept | fail |", "|---|---|---|---|"]
    for gate in result["gates"]:
        fails = {rule: of["failed"] for rule, of in gate["criteria"].items() if of["failed"]}
        out.append(_row(gate["source"], gate["total"]["candidates"], gate["total"]["retained"], fails))
    for suite in result["scores"]:
        metrics = list(suite["metrics"])
        out += [
            "",
            f"| {suite['folder']} | {' | '.join(map(words_of, metrics))} |",
            "|---" * (len(metrics) + 1) + "|",
        ]
        for row, label in suite["rows"].items():
            means = [number((suite["groups"]["all"][row].get(name) or {}).get("value")) for name in metrics]
            out.append(f"| {' | '.join([label, *means])} |")
    return [*out, "", *(f"- {one['text']}" for one in result["findings"] if one["group"] == "all")]


def _row(folder: str, before: int, after: int, refused: dict[str, int]) -> str:
    ordered = sorted(refused.items(), key=lambda item: -item[1])[:5]
    why = ", ".join(f"{reason} {count}" for reason, count in ordered) or "-"
    return f"| `{folder}` | {before} | {after} | {why} |"


def main(run: Path) -> None:
    """Draw the pictures and print the tables."""
    facts = read_object(run / "report.json")
    result = facts["result"]
    draw_pairs(run, [one["folder"] for one in (*result["curation"], *result["imports"])][: 2 * COLUMNS])
    if result["gates"]:
        draw_refused(run, result["gates"])
    if result["scores"]:
        draw_edits(run, result["scores"])
    print("\n".join(tables(facts)))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
