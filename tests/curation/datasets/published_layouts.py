"""Small data sets in the layouts that others publish, written with pyarrow, tarfile, zipfile, json and csv.

Nothing of ours writes here, so that a reader is held against the layout and not against our own idea of it.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass
class Edit:
    """A row to be published: the bytes of its files; None for a file that the table names and nobody has."""

    instruction: str
    source: bytes | None
    target: bytes | None
    suffix: str = ".png"
    task: str = "remove"
    mask: bytes | None = None
    reference: bytes | None = None
    scores: dict[str, float] = field(default_factory=dict)


Writer = Callable[[Path, Sequence[Edit]], None]


def picture_struct(data: bytes | None, path: str) -> dict[str, object]:
    """A picture as `datasets.Image` stores it."""
    return {"bytes": data, "path": path}


def put(folder: Path, name: str, data: bytes | None) -> str:
    """A file where the table will say that it is, unless it is missing."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        path.write_bytes(data)
    return name


def tar_of(files: dict[str, bytes | None]) -> bytes:
    """A tar as `tar` writes it, names relative with ./ before them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            if data is not None:
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def table(path: Path, rows: Sequence[dict[str, object]], group: int = 1000) -> None:
    """A parquet with row groups of `group` rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=group)


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def sheet(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([columns, *rows])


def magicbrush(folder: Path, edits: Sequence[Edit]) -> None:
    """Two turns to a picture, where the edits suffice."""
    rows = [
        {
            "img_id": str(100 + i // 2),
            "turn_index": 1 + i % 2,
            "source_img": picture_struct(edit.source, f"{i}.png"),
            "mask_img": picture_struct(edit.mask, f"{i}-mask.png") if edit.mask else None,
            "instruction": edit.instruction,
            "target_img": picture_struct(edit.target, f"{i}-t.png"),
        }
        for i, edit in enumerate(edits)
    ]
    table(folder / "data" / "train-00000-of-00001.parquet", rows, group=2)


def omniedit(folder: Path, edits: Sequence[Edit]) -> None:
    rows = [
        {
            "omni_edit_id": f"task_{i}",
            "task": edit.task,
            "src_img": picture_struct(edit.source, f"{i}.jpg"),
            "edited_img": picture_struct(edit.target, f"{i}.jpg"),
            "edited_prompt_list": ["a long way to say it, by a model", edit.instruction],
            "width": 48,
            "height": 32,
            "sc_score_1": edit.scores.get("sc", 9),
            "sc_score_2": 8,
            "sc_reasoning": "well",
            "pq_score": 7,
            "pq_reasoning": "well",
            "o_score": 7.5,
        }
        for i, edit in enumerate(edits)
    ]
    table(folder / "data" / "train-00000-of-00571.parquet", rows, group=3)


def ultraedit(folder: Path, edits: Sequence[Edit]) -> None:
    rows = [
        {
            "source_image": picture_struct(edit.source, ""),
            "edited_image": picture_struct(edit.target, ""),
            "mask_image": picture_struct(edit.mask, "") if edit.mask else None,
            "source_caption": "a street",
            "target_caption": "an empty street",
            "edit_prompt": edit.instruction,
        }
        for edit in edits
    ]
    table(folder / "data" / "RegionBase-00000-of-00002.parquet", rows)


def anyedit(folder: Path, edits: Sequence[Edit]) -> None:
    rows = [
        {
            "image_id": str(i),
            "edit_instruction": edit.instruction,
            "edit_type": "visual_reference" if edit.reference else edit.task,
            "image_file": picture_struct(edit.source, ""),
            "edited_file": picture_struct(edit.target, ""),
            "visual_input": picture_struct(edit.reference, "") if edit.reference else None,
            "input": "a street",
            "output": "an empty street",
        }
        for i, edit in enumerate(edits)
    ]
    table(folder / "data" / "train-00000-of-00300.parquet", rows)


def imgedit(folder: Path, edits: Sequence[Edit]) -> None:
    """Single turns, and the first two edits again as a row of two turns; tars in volumes of 1,500 bytes."""
    single: dict[str, bytes | None] = {}
    rows = []
    for i, edit in enumerate(edits):
        names = [f"results_remove_part5/{i:04d}/{which}.png" for which in ("original", "result")]
        single |= dict(zip(names, (edit.source, edit.target), strict=True))
        rows.append({"input_images": names[:1], "output_images": names[1:], "prompt": edit.instruction})
    table(folder / "Parquet" / "remove_part5.parquet", rows)
    multi: dict[str, bytes | None] = {}
    turns = []
    for turn, edit in enumerate(edits[:2]):
        names = [f"results_content_memory_part2/7/{which}_{turn}.png" for which in ("origin", "result")]
        multi |= dict(zip(names, (edit.source, edit.target), strict=True))
        turns.append({"input_images": names[:1], "output_images": names[1:], "prompt": edit.instruction})
    table(folder / "Parquet" / "content_memory_part2.parquet", [{"data": turns}])
    for name, files in (
        ("Singleturn/remove_part5.tar", single),
        ("Multiturn/results_content_memory_part2.tar", multi),
    ):
        data = tar_of(files)
        for volume in range(-(-len(data) // 1500)):
            put(folder, f"{name}.split.{volume:03d}", data[volume * 1500 : (volume + 1) * 1500])


def nhr_edit(folder: Path, edits: Sequence[Edit]) -> None:
    lines = []
    for i, edit in enumerate(edits):
        names = [f"images/00/image_{i}_{which}{edit.suffix}" for which in ("original", "edited_0")]
        for name, data in zip(names, (edit.source, edit.target), strict=True):
            put(folder / "train", name, data)
        lines.append(
            {
                "sample_id": f"s{i}",
                "source_file_name": names[0],
                "edited_file_name": names[1],
                "edit_instruction": edit.instruction,
                "augmented_instructions": [],
                "category": edit.task,
                "style": "photo",
                "kind": "original",
                "img_width": 48,
                "img_height": 32,
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    put(folder, "train/metadata.jsonl", text.encode())


def sharegpt_4o_image(folder: Path, edits: Sequence[Edit]) -> None:
    """All but the last as edits, the last as a caption's picture."""
    files: dict[str, bytes | None] = {}
    edited = []
    for i, edit in enumerate(edits[:-1]):
        names = [f"image/in_{i}.png", f"image/out_{i}.png"]
        files |= dict(zip(names, (edit.source, edit.target), strict=True))
        edited.append({"input_prompt": edit.instruction, "input_image": names[:1], "output_image": names[1]})
    files["image/made.png"] = edits[-1].target
    dump(folder / "text_and_image_to_image.json", edited)
    dump(
        folder / "text_to_image.json",
        [{"input_prompt": edits[-1].instruction, "output_image": "image/made.png"}],
    )
    half = len(files) // 2
    put(folder, "part_0.tar", tar_of(dict(list(files.items())[:half])))
    put(folder, "part_1.tar", tar_of(dict(list(files.items())[half:])))


def gpt_image_edit(folder: Path, edits: Sequence[Edit]) -> None:
    rows = []
    for i, edit in enumerate(edits):
        names = [f"input/{i}.png", f"output/{i}.png"]
        for name, data in zip(names, (edit.source, edit.target), strict=True):
            put(folder / "gpt-edit" / "omniedit", name, data)
        rows.append(
            {
                "image": names,
                "conversations": [
                    {"from": "human", "value": f"<image>\n{edit.instruction}"},
                    {"from": "gpt", "value": "<gen_image>"},
                ],
            }
        )
    dump(folder / "training_json" / "omniedit_gpt.json", rows)


def videos_of(folder: Path, edits: Sequence[Edit], source: str, target: str) -> list[tuple[str, str, str]]:
    """The files of videos, and (source, target, instruction) of each row; `{}` is the number of the row."""
    return [
        (
            put(folder, source.format(i), edit.source),
            put(folder, target.format(i), edit.target),
            edit.instruction,
        )
        for i, edit in enumerate(edits)
    ]


def senorita(folder: Path, edits: Sequence[Edit]) -> None:
    rows = videos_of(folder / "obj_removal_upload", edits, "source/{}.mp4", "edited/{}.mp4")
    names = ("source_video", "edited_video", "instruction")
    dump(folder / "obj_removal_upload" / "obj_removal.json", [dict(zip(names, r, strict=True)) for r in rows])


def openve(folder: Path, edits: Sequence[Edit]) -> None:
    rows = videos_of(folder, edits, "videos/original/{}.mp4", "videos/edited/{}.mp4")
    sheet(folder / "openve.csv", ["original_video", "video", "prompt"], rows)


def ditto(folder: Path, edits: Sequence[Edit]) -> None:
    rows = videos_of(folder / "videos", edits, "source/{}.mp4", "global_style1/{}.mp4")
    sheet(
        folder / "csvs_for_DiffSynth" / "global_style.csv",
        ["video", "prompt", "vace_video"],
        [(target, prompt, source) for source, target, prompt in rows],
    )


def reco(folder: Path, edits: Sequence[Edit]) -> None:
    rows = videos_of(folder, edits, "remove/src_videos/{}.mp4", "remove/tar_videos/{}.mp4")
    names = ("src_video", "tar_video", "instruction_final_refine")
    dump(folder / "remove" / "remove_data_configs.json", [dict(zip(names, r, strict=True)) for r in rows])


def refvie(folder: Path, edits: Sequence[Edit]) -> None:
    rows = videos_of(folder, edits, "video/source/{}.mp4", "video/target/{}.mp4")
    table(
        folder / "refvie_477k" / "chunk_0000.parquet",
        [
            {"iid": f"r{i}", "prompt": p, "src_video": s, "tgt_video": t, "ref_image_bytes": e.reference}
            for i, ((s, t, p), e) in enumerate(zip(rows, edits, strict=True))
        ],
    )


def blip3o_60k(folder: Path, edits: Sequence[Edit]) -> None:
    files: dict[str, bytes | None] = {}
    for i, edit in enumerate(edits):
        files |= {f"{i:06d}.jpg": edit.target, f"{i:06d}.txt": edit.instruction.encode()}
    put(folder, "sft_0.tar", tar_of(files))


def text_to_image_2m(folder: Path, edits: Sequence[Edit]) -> None:
    files: dict[str, bytes | None] = {}
    for i, edit in enumerate(edits):
        about = json.dumps({"prompt": edit.instruction}).encode()
        files |= {f"{i:07d}.jpg": edit.target, f"{i:07d}.json": about}
    put(folder, "data_512_2M/data_000000.tar", tar_of(files))


def llava_pretrain(folder: Path, edits: Sequence[Edit]) -> None:
    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "images.zip", "w") as packed:
        for i, edit in enumerate(edits):
            name = f"00{i % 3}/{i:09d}.jpg"
            if edit.target is not None:
                packed.writestr(name, edit.target, zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED)
            rows.append(
                {
                    "id": f"{i:09d}",
                    "image": name,
                    "conversations": [
                        {"from": "human", "value": "Describe the image concisely.\n<image>"},
                        {"from": "gpt", "value": edit.instruction},
                    ],
                }
            )
    dump(folder / "blip_laion_cc_sbu_558k.json", rows)


# By format: its writer, and whether it holds pairs of pictures, of videos, or captions with pictures.
WRITERS: dict[str, tuple[Writer, str]] = {
    "anyedit": (anyedit, "images"),
    "blip3o_60k": (blip3o_60k, "captions"),
    "ditto": (ditto, "videos"),
    "gpt_image_edit": (gpt_image_edit, "images"),
    "imgedit": (imgedit, "images"),
    "llava_pretrain": (llava_pretrain, "captions"),
    "magicbrush": (magicbrush, "images"),
    "nhr_edit": (nhr_edit, "images"),
    "omniedit": (omniedit, "images"),
    "openve": (openve, "videos"),
    "reco": (reco, "videos"),
    "refvie": (refvie, "videos"),
    "senorita": (senorita, "videos"),
    "sharegpt_4o_image": (sharegpt_4o_image, "images"),
    "text_to_image_2m": (text_to_image_2m, "captions"),
    "ultraedit": (ultraedit, "images"),
}
