"""Every public data set through the importer, with every kind of bad row among the good ones."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.datasets.cli import import_pairs
from curation.datasets.layouts.public import LAYOUTS
from curation.datasets.layouts.rows import LayoutOptions
from shards.reader import ShardSet
from shards.sample import tags_of
from tests.curation.datasets.bad_rows import (
    HEIGHT,
    WIDTH,
    Case,
    encoded,
    expected,
    image_cases,
    picture,
    video_cases,
)
from tests.curation.datasets.published_layouts import WRITERS, Edit

OF_PAIRS = {"larger", "other_aspect"}  # cases that a single picture cannot be
OF_TARGETS = {"missing", "empty_file"}
NOWHERE = {"file missing": "no file named", "file empty": "no file named"}
# A file that is missing or empty inside a table or tar is not named at all, or named and not beside it.
INSIDE: dict[str, dict[str, str]] = {
    **dict.fromkeys(("anyedit", "blip3o_60k", "text_to_image_2m", "ultraedit"), NOWHERE),
    "magicbrush": {"file empty": "file missing"},
    "omniedit": {"file empty": "file missing"},
}


def masked() -> np.ndarray:
    """Which pixels are inside of the mask of the first row, bool [H, W]."""
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[8:24, 12:36] = True
    return inside


@functools.cache
def edits_of(kind: str) -> tuple[list[Edit], dict[str, int]]:
    """Rows to be published, of which the first and the last are good, and what must be refused of them."""
    cases = list(video_cases() if kind == "videos" else image_cases())
    if kind == "captions":
        cases = [case for case in cases if case.name not in OF_PAIRS]
    cases = [*cases[1:], cases[0]]
    if kind == "videos":
        cases = [cases[-1], *cases]
    # a hole with nothing in it, white on black: a mask by either rule
    mask = np.where(masked()[..., None], (255, 255, 255, 0), (0, 0, 0, 255)).astype(np.uint8)
    edits = [
        Edit(
            case.instruction,
            case.source,
            _alone(case) if kind == "captions" else case.target,
            case.suffix,
            mask=encoded(Image.fromarray(mask)) if number == 0 else None,
            reference=encoded(picture(20)),
        )
        for number, case in enumerate(cases)
    ]
    return edits, expected(tuple(cases))


def _alone(case: Case) -> bytes | None:
    """The picture of a pair that has what the case is about."""
    return case.target if case.name in OF_TARGETS else case.source


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_good_rows_become_samples_and_bad_ones_are_counted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITVERSE_CACHE", str(tmp_path / "cache"))
    write, kind = WRITERS[name]
    edits, reasons = edits_of(kind)
    write(tmp_path / "set", edits)
    out = tmp_path / "out"
    import_pairs(name, str(tmp_path / "set"), out=str(out), heldout=0.3, workers=0)
    summary = json.loads((out / "summary.json").read_text())
    refused: dict[str, int] = {}
    for reason, count in reasons.items():
        reason = INSIDE.get(name, {}).get(reason, reason)
        refused[reason] = refused.get(reason, 0) + count
    assert summary["refused"] == refused
    again = 2 if name == "imgedit" else 0  # its first two rows are there as turns besides
    assert summary["accepted"] == len(edits) + again - sum(refused.values())
    quarantine = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert len(quarantine) == sum(refused.values())
    records = [record for split in ("train", "heldout") for record in ShardSet(out, split)]
    assert len(records) == summary["accepted"]
    for record in records:
        sample = record.sample
        assert sample.provenance.clip.license == LAYOUTS[name](LayoutOptions()).license
        assert sample.provenance.clip.name.startswith(f"{name}/")
        assert any(step.stage == "import" and step.backend == name for step in sample.provenance.steps)
        tags = tags_of(sample.text)
        assert set(tags) == set(sample.media) - {"mask"}
        assert sample.targets == tags[-1:]
        captioned = kind == "captions" or sample.task == "text_to_image"
        assert len(tags) == (1 if captioned else 3 if name in ("anyedit", "refvie") else 2)
    if name in ("magicbrush", "ultraedit"):
        (marked,) = (record for record in records if "mask" in record.sample.media)
        assert np.array_equal(marked.mask()[0], masked())


def test_turns_of_a_picture_are_in_one_split_and_the_second_names_the_first(tmp_path: Path) -> None:
    good = [Edit(f"Remove thing {i}.", encoded(picture(i)), encoded(picture(i + 40))) for i in range(16)]
    WRITERS["magicbrush"][0](tmp_path / "set", good)
    import_pairs("magicbrush", str(tmp_path / "set"), out=str(tmp_path / "out"), heldout=0.5, workers=0)
    split_of: dict[str, set[str]] = {}
    keys: dict[str, str] = {}
    samples = {}
    for split in ("train", "heldout"):
        for record in ShardSet(tmp_path / "out", split):
            name = record.sample.provenance.clip.name.removeprefix("magicbrush/")
            split_of.setdefault(name.partition("-")[0], set()).add(split)
            keys[name], samples[name] = record.sample.key, record.sample
    assert all(len(splits) == 1 for splits in split_of.values())
    assert set.union(*split_of.values()) == {"train", "heldout"}
    for name, sample in samples.items():
        image, turn = name.split("-")
        before = (keys[f"{image}-1"],) if turn == "2" else ()
        assert tuple(sample.provenance.parents) == before


@pytest.mark.slow
def test_two_processes_make_the_same_bytes_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITVERSE_CACHE", str(tmp_path / "cache"))
    WRITERS["imgedit"][0](tmp_path / "set", edits_of("images")[0])
    for out, workers in (("one", 0), ("two", 2)):
        import_pairs("imgedit", str(tmp_path / "set"), out=str(tmp_path / out), workers=workers)
    one, two = ((tmp_path / out / "manifest.jsonl").read_bytes() for out in ("one", "two"))
    assert one == two
