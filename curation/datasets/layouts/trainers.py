"""The layouts of other trainers' data: DiffSynth-Studio, musubi-tuner, LTX, Lance, BAGEL.

Columns are those of their own loaders and documentation (November 2026): `UnifiedDataset` and the examples'
`--data_file_keys`; `docs/dataset_config.md`; `docs/dataset-preparation.md`; `UnifiedEditIterableDataset`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from curation.datasets.layouts.rows import BadRow, Blob, EditRow, Part
from curation.datasets.layouts.tables import ROLES, Table, table_rows, words_of
from shards.errors import SettingError

CONTROL = re.compile(r"control_path(_\d+)?\Z")


class _Known(Table):
    """A table whose columns have names of their own, of which a file has some."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    sources: Sequence[str] = ()  # of the inputs, all that there are
    targets: Sequence[str] = ()  # of the output, the first that there is
    masks: Sequence[str] = ()
    instruction = ""

    def check(self, columns: list[str], where: str) -> None:
        """Find the columns; raise SettingError where there are none."""
        given = {role: value for role, value in self.mapping.items() if role in ROLES}
        found = self.find(columns)
        self.mapping.update({**found, **given})
        for role, names in (("target", self.targets), ("instruction", [self.instruction])):
            if role not in self.mapping:
                raise SettingError(
                    f"{where}: has no column {' or '.join(names)}, as {self.name} calls the {role}, but "
                    f"{', '.join(columns) or 'none'}; say --columns {role}=NAME"
                )
        super().check(columns, where)

    def find(self, columns: list[str]) -> dict[str, Any]:
        """Columns by role."""
        found: dict[str, Any] = {}
        sources = [name for name in self.sources if name in columns]
        if sources:
            found["source"] = sources
        if target := next((name for name in self.targets if name in columns), None):
            found["target"] = target
        if mask := next((name for name in self.masks if name in columns), None):
            found["mask"] = mask
        if self.instruction in columns:
            found["instruction"] = self.instruction
        return found

    def rows(self, part: Part) -> Iterator[EditRow | BadRow]:
        """One pair a row; in a process that has not seen the table's head, its columns are found first."""
        if "target" not in self.mapping:
            named = part.about.get("found")
            self.mapping.update(named if isinstance(named, dict) else {})
        yield from super().rows(part)

    def parts(self, source: str) -> Iterator[Part]:
        """As `Table.parts`; every part carries the columns that were found."""
        for part in super().parts(source):
            found = {role: self.mapping[role] for role in ROLES if role in self.mapping}
            yield Part(
                part.name, part.path, part.start, part.stop, {**part.about, "found": found}, part.fault
            )


class DiffSynth(_Known):
    """DiffSynth-Studio's `metadata.csv`, .json or .jsonl: `image` or `video`, of `edit_image` and others.

    Paths are relative to the table's folder (`root` in the mapping where `--dataset_base_path` is another).
    """

    name = "diffsynth"
    sources = (
        *("edit_video", "vace_video", "control_video", "in_context_videos", "input_video"),
        *("edit_image", "kontext_images", "step1x_reference_image", "nexus_gen_reference_image"),
        *("vace_reference_image", "reference_image"),
    )
    targets = ("video", "image")
    masks = ("vace_video_mask",)
    instruction = "prompt"


class Musubi(_Known):
    """musubi-tuner's JSONL: `image_path` or `video_path`, made of `control_path` or `control_path_0`."""

    name = "musubi"
    suffixes = (".jsonl",)
    targets = ("video_path", "image_path")
    instruction = "caption"

    def find(self, columns: list[str]) -> dict[str, Any]:
        """Columns by role; control paths in the order of their numbers."""
        controls = [name for name in columns if CONTROL.match(name)]
        controls.sort(key=lambda name: int(name.rpartition("_")[2]) if name[-1].isdigit() else -1)
        return super().find(columns) | ({"source": controls} if controls else {})


class Ltx(_Known):
    """The CSV, JSON or JSONL of LTX trainers: `video` comes out, of `reference_video`, by `caption`.

    LTX-Video-Trainer's documentation calls them `media_path` and `reference_path`.
    """

    name = "ltx"
    suffixes = (".csv", ".json", ".jsonl")
    sources = ("reference_video", "ref_media_path", "reference_path")
    targets = ("video", "media_path")
    masks = ("video_mask",)
    instruction = "caption"


class Lance(_Known):
    """Lance's parquet of bytes: `output_video_bytes` of `input_video_bytes` by `caption`, or of images."""

    name = "lance"
    suffixes = (".parquet",)
    sources = ("input_video_bytes", "input_image_bytes")
    targets = ("output_video_bytes", "output_image_bytes")
    instruction = "caption"


class Bagel(Table):
    """BAGEL's parquet of edits: `image_list` (bytes) and `instruction_list` (for each step its wordings).

    Every step is a row of its own, all of one split: `image_list[n]` becomes `image_list[n + 1]` by the first
    wording of `instruction_list[n]`.
    """

    name = "bagel"
    defaults: ClassVar[Mapping[str, Any]] = {"source": "image_list", "instruction": "instruction_list"}
    suffixes = (".parquet",)

    def rows(self, part: Part) -> Iterator[EditRow | BadRow]:
        """One row a step."""
        file = part.name.rpartition(":")[0]
        for number, row in table_rows(part):
            if isinstance(row, BadRow):
                yield BadRow(f"{file}:{number}", row.reason, row.detail)
            else:
                yield from self.steps(row, f"{file}:{number}")

    def steps(self, row: dict[str, Any], identity: str) -> Iterator[EditRow | BadRow]:
        """The steps of one row of the table."""
        pictures = row.get(self.mapping["source"])
        wordings = row.get(self.mapping["instruction"])
        if not isinstance(pictures, list) or not isinstance(wordings, list) or len(pictures) < 2:
            yield BadRow(identity, "no file named", "two images and an instruction at least are wanted")
            return
        if len(wordings) != len(pictures) - 1:
            yield BadRow(identity, "instructions and images disagree", f"{len(wordings)} and {len(pictures)}")
            return
        for turn, (before, after, said) in enumerate(zip(pictures, pictures[1:], wordings, strict=False), 1):
            name = f"{identity}.{turn}"
            if not isinstance(before, bytes) or not isinstance(after, bytes):
                yield BadRow(name, "no file named", "image_list holds no bytes")
                continue
            first = next(iter(said), "") if isinstance(said, list) else said
            yield EditRow(
                name,
                words_of(first),
                Blob.of(after),
                (Blob.of(before),),
                task=self.task,
                group=identity if len(pictures) > 2 else "",
                parent=f"{identity}.{turn - 1}" if turn > 1 else None,
                turn=turn,
            )
