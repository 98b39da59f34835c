"""How many planted defects calibrated signals find, by kind, with intervals; no times.

100 clean pairs and 40 of each kind, in halves without a common scene: rules are calibrated on one, to keep
95 % of its clean pairs, and counted on the other; then the other way round. Scenes are rendered, and pairs
graded, once, in runs/defects; pairs of real clips are added where `make curate-all` made them.
"""

from __future__ import annotations

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
SEEN_IN = ("object_removal", "object_addition")  # tasks in which a swap shows without words


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Plant, grade, calibrate, count."""
    folder = scratch if quick else FOLDER
    labels = planted(folder, quick)
    figures = []
    kept = {}
    halves = [[label for label in labels if half_of(label) == half] for half in (0, 1)]
    for own, other in (halves, halves[::-1]):
        rules, judged = rules_of(folder / "set", own)
        figures.append(Figure("rules of one half", None, None, "", rules))
        kept |= {label.key: judged[label.key] for label in other}
    figures.append(
        Figure("clean, kept", None, None, "", share([kept[x.key] for x in labels if x.kind == CLEAN]))
    )
    for kind in KINDS:
        some = [label for label in labels if label.kind == kind]
        parts = {"": some}
        if kind == "swapped":
            parts = {
                " (removals, additions)": [label for label in some if label.task in SEEN_IN],
                " (others)": [label for label in some if label.task not in SEEN_IN],
            }
        for name, part in parts.items():
            caught = share([not kept[label.key] for label in part])
            figures.append(Figure(f"{kind}{name}, caught", None, None, "", caught))
    return figures


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


def share(hits: Sequence[bool]) -> str:
    """`38 of 40: 95 % (84-99)`, with Wilson's interval."""
    found = Estimate.of(np.array(hits, bool))
    return f"{found.hits} of {found.samples}: {found.words()}"
