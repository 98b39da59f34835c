"""Tables and folders of one's own, and those that other trainers read.

Columns and folders as the trainers' own loaders have them: DiffSynth-Studio (`UnifiedDataset`), musubi-tuner
(docs/dataset_config.md), ai-toolkit (`AiToolkitDataset`), LTX (`process_dataset.py` of LTX-2 and
`preprocess_dataset.py` of LTX-Video-Trainer), BAGEL (`UnifiedEditIterableDataset`), Lance
(`X2VInterleaveLocalIterableDataset`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from curation.datasets.exporters.formats import Format, Row, Store, Table, known, put_all
from curation.datasets.exporters.pairs import Pair
from shards.sample import Sample

if TYPE_CHECKING:
    import pyarrow as pa


def _kind(pair: Pair) -> str:
    return pair.kind(pair.target)


def _kind_and_mask(pair: Pair) -> str:
    return _kind(pair) + ("_mask" if pair.mask else "")


# ---- one's own ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """The columns of a table that depend on its samples: how many references, which captions and scores."""

    references: int = 0
    captions: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> _Columns:
        """Those that any of these samples needs."""
        references = 0
        captions: set[str] = set()
        scores: set[str] = set()
        for sample in samples:
            sources = [m for n, m in sample.media.items() if m.kind != "mask" and n not in sample.targets[1:]]
            references = max(references, len(sources) - 2)
            captions |= set(sample.captions)
            scores |= set(sample.scores)
        return cls(references, tuple(sorted(captions)), tuple(sorted(scores)))

    def row(self, pair: Pair, store: Store) -> Row:
        """A row with all of them."""
        sample = pair.sample
        roles = put_all(pair, store, {role: f"{role}/{pair.key}" for role in ("source", "target", "mask")})
        references: list[Any] = [None] * self.references
        for number, name in enumerate(pair.sources[1:]):
            references[number] = store.put(pair, name, f"reference_{number + 1}/{pair.key}")
        return {
            "id": pair.key,
            "source": roles.get("source"),
            "target": roles["target"],
            "mask": roles.get("mask"),
            **{f"reference_{number}": value for number, value in enumerate(references, 1)},
            "instruction": pair.instruction,
            "task": sample.task,
            "license": sample.provenance.clip.license,
            "origin": pair.origin,
            **{f"caption_{name}": sample.captions.get(name) for name in self.captions},
            **{f"score_{name}": sample.scores.get(name) for name in self.scores},
        }

    def schema(self) -> pa.Schema:
        """Of a parquet of such rows."""
        import pyarrow as pa

        picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        media = ["source", "target", "mask", *(f"reference_{n}" for n in range(1, self.references + 1))]
        words = ["instruction", "task", "license", "origin", *(f"caption_{n}" for n in self.captions)]
        return pa.schema(
            [
                ("id", pa.string()),
                *((name, picture) for name in media),
                *((name, pa.string()) for name in words),
                *((f"score_{name}", pa.float64()) for name in self.scores),
            ]
        )

    def mapping(self) -> dict[str, Any]:
        """What `import table --mapping` reads such a table by."""
        sources = ["source", *(f"reference_{number}" for number in range(1, self.references + 1))]
        roles: dict[str, Any] = {"source": sources if len(sources) > 1 else "source"}
        roles |= {role: role for role in ("target", "instruction", "mask", "id", "task", "license")}
        roles["captions"] = {name: f"caption_{name}" for name in self.captions}
        roles["scores"] = {name: f"score_{name}" for name in self.scores}
        return {role: value for role, value in roles.items() if value}


def _table_of(format: Format, samples: Iterable[Sample]) -> Format:
    columns = _Columns.of(samples)
    mapping = yaml.safe_dump(columns.mapping(), sort_keys=False)
    return replace(
        format,
        row=columns.row,
        schema=columns.schema,
        files=lambda folder, tables: {"mapping.yaml": mapping},
    )


def _folder_row(pair: Pair, store: Store) -> Row:
    stem = re.sub(r"_(?=(edited|mask|reverse)$)", "-", pair.key)  # which stand for other roles
    put_all(pair, store, {"source": stem, "target": f"{stem}_edited", "mask": f"{stem}_mask"})
    store.put_bytes(f"{stem}.txt", f"{pair.instruction}\n".encode())
    return {}


# ---- DiffSynth-Studio --------------------------------------------------------------------------------------


def _diffsynth_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {"target": f"target/{pair.key}", "source": f"source/{pair.key}"})
    if _kind(pair) == "image":
        return {"image": roles["target"], "edit_image": roles["source"], "prompt": pair.instruction}
    row = {"video": roles["target"], "vace_video": roles["source"], "prompt": pair.instruction}
    if pair.mask is not None:
        row["vace_video_mask"] = store.put(pair, pair.mask, f"mask/{pair.key}")
    return row


# ---- musubi-tuner ------------------------------------------------------------------------------------------


def _musubi_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {"target": f"target/{pair.key}", "source": f"control/{pair.key}"})
    # musubi-tuner opens paths as they are, from wherever it is started.
    target, control = (f"{store.folder}/{roles[role]}" for role in ("target", "source"))
    return {f"{_kind(pair)}_path": target, "control_path": control, "caption": pair.instruction}


def _musubi_files(folder: str, tables: list[Table]) -> Mapping[str, str]:
    """`dataset.toml`, which names the tables; settings of training are musubi-tuner's to choose."""
    lines = [
        "# Sizes, frames and batches are yours to choose: docs/dataset_config.md of musubi-tuner.",
        "[general]",
    ]
    lines += ["resolution = [960, 544]", "batch_size = 1", "enable_bucket = true"]
    for table in tables:
        lines += ["", "[[datasets]]", f"{table.shape}_jsonl_file = {json.dumps(f'{folder}/{table.file}')}"]
        lines += [f"cache_directory = {json.dumps(f'{folder}/cache-{table.shape}')}"]
        if table.shape == "video":
            lines += ["target_frames = [1, 25, 45]", 'frame_extraction = "head"']
    return {"dataset.toml": "\n".join(lines) + "\n"}


# ---- ai-toolkit --------------------------------------------------------------------------------------------


def _ai_toolkit_row(pair: Pair, store: Store) -> Row:
    put_all(pair, store, {"target": f"target/{pair.key}", "source": f"control/{pair.key}"})
    for number, name in enumerate(pair.sources[1:], 2):
        store.put(pair, name, f"control_{number}/{pair.key}")
    store.put_bytes(f"target/{pair.key}.txt", f"{pair.instruction}\n".encode())
    return {}


# ---- LTX ---------------------------------------------------------------------------------------------------


def _ltx_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {"target": f"videos/{pair.key}", "source": f"references/{pair.key}"})
    row = {"caption": pair.instruction, "video": roles["target"], "reference_video": roles["source"]}
    if pair.mask is not None:
        row["video_mask"] = store.put(pair, pair.mask, f"masks/{pair.key}")
    return row


# ---- BAGEL and Lance ---------------------------------------------------------------------------------------


def _bagel_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {"source": "source", "target": "target"})
    pictures = [roles["source"]["bytes"], roles["target"]["bytes"]]
    return {"image_list": pictures, "instruction_list": [[pair.instruction]]}


def _bagel_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("image_list", pa.list_(pa.binary())),
            ("instruction_list", pa.list_(pa.list_(pa.string()))),
        ]
    )


def _lance_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {"source": "source", "target": "target"})
    kind = _kind(pair)
    return {
        "caption": pair.instruction,
        f"input_{kind}_bytes": roles["source"]["bytes"],
        f"output_{kind}_bytes": roles["target"]["bytes"],
    }


TRAINERS = known(
    [
        Format(
            "table",
            "a table of one's own and its files; --table csv, jsonl or parquet",
            _Columns().row,
            references=97,
            prepare=_table_of,
            extras=frozenset({"mask", "task", "license", "origin", "captions", "scores"}),
        ),
        Format(
            "folder",
            "KEY.mp4, KEY_edited.mp4, KEY_mask.mkv and KEY.txt in one folder",
            _folder_row,
            table="none",
            extras=frozenset({"mask"}),
        ),
        Format(
            "diffsynth",
            "DiffSynth-Studio: metadata.csv of image, edit_image or video, vace_video, and prompt",
            _diffsynth_row,
            table="csv",
            shape=_kind_and_mask,
            extras=frozenset({"mask"}),
            mask_kinds=frozenset({"video"}),
        ),
        Format(
            "musubi",
            "musubi-tuner: metadata.jsonl of image_path or video_path, control_path, caption; dataset.toml",
            _musubi_row,
            shape=_kind,
            files=_musubi_files,
        ),
        Format(
            "ai_toolkit",
            "ai-toolkit: folders target, with a caption beside each file, and control",
            _ai_toolkit_row,
            table="none",
            references=2,
        ),
        Format(
            "ltx",
            "LTX trainers: dataset.jsonl of caption, video, reference_video and video_mask",
            _ltx_row,
            table_name="dataset",
            shape=_kind_and_mask,
            extras=frozenset({"mask"}),
        ),
        Format(
            "bagel",
            "BAGEL: parquet of image_list and instruction_list",
            _bagel_row,
            kinds=frozenset({"image"}),
            store="parquet",
            schema=_bagel_schema,
        ),
        Format(
            "lance",
            "Lance: parquet of caption, input_video_bytes and output_video_bytes, or of images",
            _lance_row,
            store="parquet",
            shape=_kind,
        ),
    ]
)
