"""How many planted defects calibrated signals find, by kind, with intervals; no times.

100 clean pairs and 40 of each kind, in five parts without a common scene: `calibrate` proposes rules from
four, to keep 95 % of the clean pairs, and they are counted on the fifth, in turn. The same with halves, whose
rules see half of the pairs. Both three times, with other parts; the labels name the kind alone. Scenes are
rendered, and pairs graded, once, in runs/defects; pairs of real clips are added where `make curate-all` made
them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from curation.engine.engine import Engine, EngineOptions
from curation.engine.run import run
from curation.quality.grade import grade, read_graders
from curation.quality.plant import CLEAN, KINDS, Label, Shrink, labels_of, plant, read_labels
from curation.quality.selection.calibration import Estimate, calibrate
from curation.quality.selection.labels import Label as Verdict
from curation.quality.selection.labels import LabelSet
from curation.quality.selection.rules import judge
from shards.reader import ShardSet
from shards.scores import open_scores
from tests.perf.measure import Figure

FOLDER = Path("runs/defects")
SCENES = 90
SPLITS = 3  # into parts
MORE = ("cg_replacement", "object_removal", "object_replacement")  # of data/shards, where they are
SEEN_IN = ("object_removal", "object_addition")  # tasks in which a swap shows without words


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Plant, grade, calibrate, count."""
    folder = scratch if quick else FOLDER
    labels = planted(folder, quick)
    figures = []
    for way, count in (("four fifths", 5), ("half", 2)):
        kept: list[dict[str, bool]] = []
        for split in range(1 if quick else SPLITS):
            part = parted(labels, count, split)
            kept.append({})
            for number in range(count):
                own = [label for label in labels if part[label.clip] != number]
                words, judged = rules_of(folder / "set", own)
                if not split:
                    name = f"from {way}: rules without part {number}"
                    figures.append(Figure(name, None, None, "", words))
                others = [label.key for label in labels if part[label.clip] == number]
                kept[-1] |= {key: judged[key] for key in others}
        clean = [label.key for label in labels if label.kind == CLEAN]
        told = share([[of_split[key] for key in clean] for of_split in kept])
        figures.append(Figure(f"from {way}: clean, kept", None, None, "", told))
        for name, some in parts(labels).items():
            told = share([[not of_split[label.key] for label in some] for of_split in kept])
            figures.append(Figure(f"from {way}: {name}, caught", None, None, "", told))
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


def parted(labels: Sequence[Label], count: int, split: int) -> dict[str, int]:
    """The part of each scene, so that every part has about as many samples of each kind and variant."""
    scenes: defaultdict[str, list[Label]] = defaultdict(list)
    for label in labels:
        scenes[label.clip].append(label)
    wanted = Counter((label.kind, label.how) for label in labels)
    filled: list[Counter[tuple[str, str]]] = [Counter() for _ in range(count)]
    part = {}

    def place(name: str) -> tuple[int, bytes]:
        """The largest first, and those of one size in an order that says nothing of them."""
        return -len(scenes[name]), hashlib.sha256(f"{split} {name}".encode()).digest()

    for scene in sorted(scenes, key=place):
        kinds = Counter((label.kind, label.how) for label in scenes[scene])
        costs = [sum(n * some[kind] / wanted[kind] for kind, n in kinds.items()) for some in filled]
        part[scene] = costs.index(min(costs))
        filled[part[scene]] += kinds
    return part


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
    of_task = found.rules.tasks or {"": found.rules.rules}
    words = "; ".join(
        f"{task} {', '.join(rule.words(name) for name, rule in rules.items() if rule)}".strip()
        for task, rules in of_task.items()
    )
    words = f"price {found.price:g}: {words}"
    return words, dict(zip(opened.keys, passed.tolist(), strict=True))


def share(hits: Sequence[Sequence[bool]]) -> str:
    """`38.7 of 40: 97 % (87-99), 95-100 by split`: means over splits, with Wilson's interval of one."""
    found = [float(np.mean(of_split)) for of_split in hits]
    count = len(hits[0])
    mean = Estimate.of(np.arange(count) < round(count * float(np.mean(found))))
    spread = f", {100 * min(found):.0f}-{100 * max(found):.0f} by split" if len(hits) > 1 else ""
    around = f"{100 * (mean.low or 0):.0f}-{100 * (mean.high or 0):.0f}"
    average = float(np.mean(found))
    return f"{count * average:.3g} of {count}: {100 * average:.0f} % ({around}){spread}"
