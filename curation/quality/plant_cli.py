"""The command `plant`: bad pairs of known kinds among good ones, with their labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from curation.quality.plant import (
    CLEAN,
    KINDS,
    Shrink,
    count_pairs,
    labels_of,
    plant,
    read_labels,
    write_votes,
)
from shards.errors import SettingError
from shards.files import exclusive, is_unused, write_json
from shards.reader import ShardSet
from shards.terminal import print_table

MARK = "plant.json"  # what was asked for, in the folder


def plant_defects(
    shards: str,
    out: str | None = None,
    share: float = 0.3,
    kinds: tuple[str, ...] = (),
    each: int | None = None,
    clean: int | None = None,
    tasks: tuple[str, ...] = (),
    repeats: bool = False,
    labels: Path | None = None,
    labelled: float = 1.0,
    height: int = 0,
    frames: int = 0,
    seed: int = 0,
) -> None:
    """Plant defects in some of the pairs of shards that are good, with labels that `calibrate` reads.

    Args:
        shards: folder of shards of good pairs; several with commas between.
        out: folder for the new shards, <shards>-planted when left out; the same command takes it up again.
        share: of the pairs, which get a defect each, all kinds alike.
        kinds: of defects, all when left out; what would hardly show is not planted.
        each: pairs with a defect of each kind, in place of --share.
        clean: pairs without a defect; all others when left out.
        tasks: of the samples that are taken; all when left out.
        repeats: take also the samples that show another one's pair, under other words.
        labels: JSONL file of labels, as a person would give them with `label`.
        labelled: share of the pairs that are labelled there.
        height: pixels to which pairs are made smaller; 0 leaves them as they are.
        frames: at most, evenly spaced; 0 leaves them as they are.
        seed: of which pairs get which defect.
    """
    _check(share, labelled, each, clean, height, frames)
    folders, wanted, chosen = _names(shards), [*kinds] or [*KINDS], [*tasks]
    if not folders:
        raise SettingError("shards: name a folder of shards")
    if out is None and len(folders) > 1:
        raise SettingError("--out: name a folder; there are several of shards")
    target = Path(out or f"{folders[0].rstrip('/')}-planted")
    if each is None:
        pairs = count_pairs(folders, not repeats, chosen)
        counts = dict.fromkeys(wanted, max(1, round(pairs * share / len(wanted))))
    else:
        counts = dict.fromkeys(wanted, each)
    settings = {
        "shards": {folder: [row.sha256 for row in ShardSet(folder).rows] for folder in folders},
        "counts": counts,
        "others": [clean, seed, chosen, repeats, height, frames],
    }
    with exclusive(target, "--out"):
        if not _is_planted(target, settings):
            plant(folders, target, counts, clean, seed, not repeats, Shrink(height, frames), chosen)
    planted = read_labels(target)
    table = Table("planted", "pairs")
    for kind, count in sorted(
        Counter(label.kind for label in planted).items(), key=lambda one: one[0] == CLEAN
    ):
        table.add_row(kind, f"{count:,}")
    print_table(table)
    print(f"{target}: {len(planted):,} samples; {labels_of(target)} says what was planted in each")
    if labels is not None:
        print(f"{labels}: labels of {write_votes(planted, labels, labelled, seed):,} samples")


def _names(text: str) -> list[str]:
    """Names that stand in a text with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _is_planted(out: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder holds what these settings plant; what an interrupted call left of it is removed.

    Raises:
        SettingError: it holds something else.
    """
    mark = out / MARK
    if not mark.is_file():
        if not is_unused(out):
            raise SettingError(f"--out {out}: is not empty and holds no planted pairs; choose another folder")
        write_json(mark, settings)
        return False
    if json.loads(mark.read_bytes()) != settings:
        raise SettingError(
            f"--out {out}: holds pairs planted by other settings; choose another folder, or remove it"
        )
    if labels_of(out).is_file():  # which is written last
        return True
    for left in out.glob("*.tar"):
        left.unlink()
    return False


def _check(
    share: float, labelled: float, each: int | None, clean: int | None, height: int, frames: int
) -> None:
    """Raise SettingError for a number that cannot be."""
    for name, value in (("share", share), ("labelled", labelled)):
        if not 0 < value <= 1:
            raise SettingError(f"--{name} {value:g}: needs to be above 0 and at most 1")
    for name, count in (("each", each), ("clean", clean), ("height", height), ("frames", frames)):
        if count is not None and count < 0:
            raise SettingError(f"--{name} {count}: needs at least 0")


COMMANDS: dict[str, Callable[..., None]] = {"plant": plant_defects}
