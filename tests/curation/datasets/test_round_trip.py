"""What is exported is read back by the importer of the same format: the same texts, tasks and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.datasets.exporters.command import FORMATS, format_of
from curation.datasets.exporters.exporter import Choice, export_pairs
from curation.datasets.exporters.formats import Format
from curation.datasets.exporters.pairs import pairs_of
from curation.datasets.importer import run_import
from curation.datasets.layouts.mapping import mapping_of
from curation.datasets.layouts.rows import LayoutOptions
from curation.datasets.pairs import Rules
from curation.datasets.part import Job
from shards.reader import Record, ShardSet, stream
from tests.curation.datasets.pairs import image_items, video_items, write_folder

TABLES = ("csv", "jsonl", "parquet")
CASES = [(f"table-{table}", "table", table, "image") for table in TABLES] + [
    (f"{name}-{kind}", name, "jsonl", kind)
    for name, format in FORMATS.items()
    for kind in ("video", "image")
    if kind in format.kinds and (name, kind) != ("table", "image")
]
# Videos are encoded again on their way in, which takes its time: those of musubi-tuner stand for all.
SLOW = [pytest.mark.slow]
PARAMETERS = [
    pytest.param(*case[1:], id=case[0], marks=SLOW if case[3] == "video" and case[1] != "musubi" else [])
    for case in CASES
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of videos and one of images."""
    folder = tmp_path_factory.mktemp("media")
    return {
        "video": write_folder(folder / "video", video_items(folder)),
        "image": write_folder(folder / "image", image_items(folder)),
    }


def held(format: Format, shards: Path) -> dict[str, Record]:
    """The samples that a format holds, by their instruction."""
    found = {}
    for record in stream(shards, "train"):
        for pair in pairs_of(record):
            if format.refuse(pair) is None and len(pair.sources) < 2:
                found[pair.instruction] = record
    return found


def read_back(format: Format, source: Path, out: Path) -> dict[str, Record]:
    """The samples of an import by their instruction; of a format that says no task, all of one."""
    mapping = source / "mapping.yaml"
    task = "" if "task" in format.extras or format.task_words else "my_edits"
    options = LayoutOptions(mapping_of(mapping if mapping.is_file() else None, ""), task)
    tables = [path for suffix in ("csv", "jsonl") for path in source.glob(f"*.{suffix}")]
    found = {}
    # Tables of other columns are data sets of their own.
    for number, path in enumerate(sorted(tables) if len(tables) > 1 else [source]):
        folder = out / str(number)
        job = Job(format.name, options, Rules(heldout=0.0), "", str(folder), "")
        run_import(job, str(path), workers=0)
        found |= {pair.instruction: pair.record for record in ShardSet(folder) for pair in pairs_of(record)}
    return found


@pytest.mark.parametrize(("name", "table", "kind"), PARAMETERS)
def test_the_importer_reads_what_the_exporter_wrote(
    name: str, table: Any, kind: str, shards: dict[str, Path], tmp_path: Path
) -> None:
    format = format_of(name, table)
    export_pairs(format, shards[kind], tmp_path / "out", Choice())
    back = read_back(format, tmp_path / "out", tmp_path / "in")
    expected = held(format, shards[kind])
    masked = format.mask_kinds if "mask" in format.extras else ()
    assert set(expected) <= set(back)
    assert len(expected) >= (3 if kind == "video" else 1)
    for words, ours in expected.items():
        theirs = back[words]
        if "<mask>" not in ours.sample.text:
            assert theirs.sample.text == ours.sample.text
        says_task = ours.sample.task in format.task_words or "task" in format.extras
        assert theirs.sample.task == (ours.sample.task if says_task else "my_edits")
        assert ("mask" in theirs.sample.media) == ("mask" in ours.sample.media and kind in masked)
        for element in theirs.sample.media:
            there, here = theirs.pixels(element).astype(int), ours.pixels(element).astype(int)
            assert there.shape == here.shape
            # Images and masks to the bit; videos are encoded once more. Other videos differ by 50 and more.
            most = 6.0 if element.startswith("video") else 0
            assert np.abs(there - here).mean() <= most, (words, element)
        if "scores" in format.extras:
            assert theirs.sample.scores.items() >= ours.sample.scores.items()
            assert theirs.sample.captions.items() >= ours.sample.captions.items()
            assert theirs.sample.provenance.clip.license == ours.sample.provenance.clip.license
