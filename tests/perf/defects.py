"""How many planted defects calibrated signals find, by kind, with intervals; no times.

100 clean pairs and 40 of each kind, in halves without a common scene: rules are calibrated on one, to keep
95 % of its clean pairs, and counted on the other; then the other way round. Scenes are rendered, and pairs
graded, once, in runs/defects; pairs of real clips are added where `make curate-all` made them.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from curation.engine.engine import Engine, EngineOptions
from curation.engine.run import run
from curation.quality.grade import grade, read_graders
from curation.quality.selection.calibration import Estimate, calibrate
from curation.quality.selection.labels import Label as Verdict
from curation.quality.selection.labels import LabelSet
from curation.quality.selection.rules import judge
from shards.reader import ShardSet
from shards.scores import open_scores
from tests.perf.measure import Figure
from tests.planted_defects import CLEAN, KINDS, Label, Shrink, labels_of, plant, read_labels

FOLDER = Path("runs/defects")
SCENES = 90
MORE = ("cg_replacement", "object_removal", "object_replacement")  # of data/shards, where they are
MARGINS = (0.25, 1.0)
ABOUT_OTHERS = (
    "duplicate_distance",
    "mask_area_variation",
    "mask_overlap",
    "bars",
)  # what none of the kinds is
SEEN_IN = ("object_removal", "object_addition")  # tasks in which a swap shows without words


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Plant, grade, calibrate, count."""
    folder = scratch if quick else FOLDER
    labels = planted(folder, quick)
    halves = [[label for label in labels if half_of(label) == half] for half in (0, 1)]
    figures = []
    ways = {
        "calibrate": rules_of,
        **{f"margin {m:g}": functools.partial(by_margin, margin=m) for m in MARGINS},
    }
    for way, rules in ways.items():
        kept: dict[str, bool] = {}
        for own, other in (halves, halves[::-1]):
            words, judged = rules(folder / "set", own)
            figures.append(Figure(f"{way}: rules of one half", None, None, "", words))
            kept |= {label.key: judged[label.key] for label in other}
        clean = share([kept[label.key] for label in labels if label.kind == CLEAN])
        figures.append(Figure(f"{way}: clean, kept", None, None, "", clean))
        for name, part in parts(labels).items():
            caught = share([not kept[label.key] for label in part])
            figures.append(Figure(f"{way}: {name}, caught", None, None, "", caught))
    return figures


def parts(labels: Sequence[Label]) -> dict[str, list[Label]]:
    """The planted samples by kind; those of which a part can be seen also by that part."""
    made = {}
    for kind in KINDS:
        some = [label for label in labels if label.kind == kind]
        if kind == "swapped":
            made[f"{kind} (removals, additions)"] = [label for label in some if label.task in SEEN_IN]
            made[f"{kind} (others)"] = [label for label in some if label.task not in SEEN_IN]
        elif kind in ("blur", "flicker"):
            for how in sorted({label.how for label in some}):
                made[f"{kind} ({how})"] = [label for label in some if label.how == how]
        else:
            made[kind] = some
    return made


def planted(folder: Path, quick: bool) -> list[Label]:
    """The labels of the planted and graded folder `set`, made unless it is there."""
    out = folder / "set"
    if not labels_of(out).is_file():
        folders = [rendered(folder, 8 if quick else SCENES)]
        folders += [found for name in MORE if (found := Path("data/shards") / name).is_dir() and not quick]
        each, clean = (6, 20) if quick else (40, 100)
        shutil.rmtree(out, ignore_errors=True)
        plant(folders, out, dict.fromkeys(KINDS, each), clean, shrink=Shrink(160, 9))
    with Engine(EngineOptions(1)) as engine:
        grade(read_graders(None, str(out), ()), folder / "workspace", engine)
    return read_labels(out)


def rendered(folder: Path, scenes: int) -> Path:
    """Removals and additions in so many scenes."""
    out = folder / "cg_removal"
    if not (out / "manifest.jsonl").is_file():
        settings = {"height": 240, "width": 320, "frames": 17, "fps": 10.0}
        config = folder / "cg_removal.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        given = {"scenes": scenes, "scene": settings}
        config.write_text(
            yaml.safe_dump({"class_path": "curation.tasks.cg_removal.CgRemoval", "init_args": given})
        )
        run("cg_removal", "", out, folder / "workspace", config, 1)
    return out


def half_of(label: Label) -> int:
    """The half of a sample: the same for all of its scene."""
    return hashlib.sha256(label.clip.encode()).digest()[0] % 2


def rules_of(shards: Path, labels: Sequence[Label]) -> tuple[str, dict[str, bool]]:
    """The rules that labels lead to, in words, and what they say of every sample of a folder."""
    said, stored = LabelSet(), open_scores(shards)
    for label in labels:
        clean = label.kind == CLEAN
        said.add(Verdict(key=label.key, keep=clean, reasons=() if clean else (label.kind,)))
    names = [name for name in stored.names if stored.about(name).made_by.startswith("grade ")]
    names.remove("duplicate_of")
    found, _ = calibrate(shards, said, keep_clean=0.95, scores=names)
    opened = ShardSet(shards)
    tasks = np.array([opened.entry(number).task for number in range(len(opened))])
    passed = judge(found.rules, tasks, {name: stored.column(name) for name in names}).kept
    words = ", ".join(rule.words(name) for name, rule in found.rules.rules.items() if rule)
    return words, dict(zip(opened.keys, passed.tolist(), strict=True))


def by_margin(shards: Path, labels: Sequence[Label], margin: float) -> tuple[str, dict[str, bool]]:
    """Rules without a fit of tails, to compare with: thresholds beyond the worst clean value of a signal.

    They lie `margin` times the distance from there to the lowest tenth of the clean values. Of all signals
    those are taken, the best first, that catch at least 3 samples more.
    """
    stored, keys = open_scores(shards), ShardSet(shards).keys
    named = [name for name in stored.names if stored.about(name).made_by.startswith("grade ")]
    names = [n for n in named if stored.about(n).better != "neither" and n not in ABOUT_OTHERS]
    signs = [1 if stored.about(name).better == "higher" else -1 for name in names]
    values = np.array([s * np.asarray(stored.column(n), float) for n, s in zip(names, signs, strict=True)])
    values = np.where(np.isnan(values), np.inf, values)
    kinds = {label.key: label.kind for label in labels}
    clean = np.array([kinds.get(key) == CLEAN for key in keys])
    left = np.array([kinds.get(key, CLEAN) != CLEAN for key in keys])
    limits = np.full(len(names), -np.inf)
    for row, one in enumerate(values):
        known = one[clean & np.isfinite(one)]
        if len(known) >= 8:
            limits[row] = known.min() - margin * (np.quantile(known, 0.1) - known.min())
    caught, chosen = values < limits[:, None], []
    while (gains := (caught & left).sum(1)).max() >= 3:
        chosen.append(int(gains.argmax()))
        left &= ~caught[chosen[-1]]
    words = ", ".join(
        f"{names[row]} {'<>'[signs[row] > 0]}= {signs[row] * limits[row]:.4g}" for row in chosen
    )
    passed = ~caught[chosen].any(0)
    return words, dict(zip(keys, passed.tolist(), strict=True))


def share(hits: Sequence[bool]) -> str:
    """`38 of 40: 95 % (84-99)`, with Wilson's interval."""
    found = Estimate.of(np.array(hits, bool))
    return f"{found.hits} of {found.samples}: {found.words()}"
