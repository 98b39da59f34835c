"""The layouts of published data sets, for tools that read those. `import` reads each under the same name."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from curation.datasets.exporters.formats import Format, Row, Store, known, put_all
from curation.datasets.exporters.pairs import Pair

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE = frozenset({"image"})
VIDEO = frozenset({"video"})
# Their words for our tasks. What they have no word for becomes an edit of attributes, or "other".
OMNIEDIT = {
    "object_removal": "removal",
    "object_addition": "addition",
    "object_replacement": "swap",
    "style_transfer": "style",
}
ANYEDIT = {
    "object_removal": "remove",
    "object_addition": "add",
    "object_replacement": "replace",
    "style_transfer": "style_change",
}
NHR_EDIT = {
    "object_removal": "remove",
    "object_addition": "add",
    "object_replacement": "replace",
    "style_transfer": "style",
}
RECO = {
    "object_removal": "remove",
    "object_addition": "add",
    "object_replacement": "replace",
    "style_transfer": "style",
}
OPENVE = {"object_removal": "local_remove", "object_addition": "local_add", "style_transfer": "global_style"}
OMNIEDIT_SCORES = {"sc_1": "sc_score_1", "sc_2": "sc_score_2", "pq": "pq_score", "overall": "o_score"}


# ---- parquet with pictures ---------------------------------------------------------------------------------


def _schema(**columns: str) -> pa.Schema:
    """A schema by names of types; "image" is Hugging Face's struct."""
    import pyarrow as pa

    types = {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "string": pa.string(),
        "strings": pa.list_(pa.string()),
        "int": pa.int32(),
        "float": pa.float64(),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


def _magicbrush_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {"source": f"{pair.key}-input", "target": f"{pair.key}-output1"})
    mask = None
    if pair.mask is not None:
        mask = store.put_bytes(f"{pair.key}-mask1.png", _transparent(pair, pair.mask))
    return {
        "img_id": pair.key,
        "turn_index": 1,
        "source_img": roles["source"],
        "mask_img": mask,
        "instruction": pair.instruction,
        "target_img": roles["target"],
    }


def _transparent(pair: Pair, mask: str) -> bytes:
    """The source as a PNG that is transparent where the edit is, which is how MagicBrush has masks."""
    from PIL import Image

    picture = pair.record.image(pair.sources[0])
    alpha = np.where(pair.record.mask(mask)[0], np.uint8(0), np.uint8(255))
    data = io.BytesIO()
    Image.fromarray(np.dstack([picture, alpha])).save(data, "PNG")
    return data.getvalue()


def _omniedit_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {"source": f"{pair.key}-src", "target": f"{pair.key}-edited"})
    media = pair.sample.media[pair.target]
    scores = {column: pair.sample.scores.get(name) for name, column in OMNIEDIT_SCORES.items()}
    return {
        "omni_edit_id": pair.key,
        "task": OMNIEDIT.get(pair.sample.task, "attribute_modification"),
        "src_img": roles["source"],
        "edited_img": roles["target"],
        "edited_prompt_list": [pair.instruction],
        "width": media.width,
        "height": media.height,
        **scores,
    }


def _ultraedit_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {role: f"{pair.key}-{role}" for role in ("source", "target", "mask")})
    return {
        "source_image": roles["source"],
        "edited_image": roles["target"],
        "mask_image": roles.get("mask"),
        "edit_prompt": pair.instruction,
        "source_caption": pair.sample.captions.get("source"),
        "target_caption": pair.sample.captions.get("target"),
    }


def _anyedit_row(pair: Pair, store: Store) -> Row:
    roles = put_all(pair, store, {"source": f"{pair.key}-image", "target": f"{pair.key}-edited"})
    return {
        "image_id": pair.key,
        "edit_instruction": pair.instruction,
        "edit_type": ANYEDIT.get(pair.sample.task, "appearance_alter"),
        "image_file": roles["source"],
        "edited_file": roles["target"],
        "input": pair.sample.captions.get("source"),
        "output": pair.sample.captions.get("target"),
    }


# ---- tables beside tars or files ---------------------------------------------------------------------------


def _imgedit_row(pair: Pair, store: Store) -> Row:
    task = pair.sample.task
    roles = put_all(
        pair, store, {"source": f"{task}/{pair.key}/original", "target": f"{task}/{pair.key}/result"}
    )
    return {
        "input_images": [roles["source"]],
        "output_images": [roles["target"]],
        "prompt": pair.instruction,
    }


def _sharegpt_row(pair: Pair, store: Store) -> Row:
    before = "text_and_image_to_image"
    roles = put_all(
        pair, store, {"source": f"{before}/input/{pair.key}", "target": f"{before}/output/{pair.key}"}
    )
    return {
        "input_prompt": pair.instruction,
        "input_image": [roles["source"]],
        "output_image": roles["target"],
    }


def _nhr_edit_row(pair: Pair, store: Store) -> Row:
    folder = f"train/images/{pair.key[-2:]}"  # some files a folder, not all in one
    roles = put_all(pair, store, {"source": f"{folder}/{pair.key}", "target": f"{folder}/{pair.key}_edited"})
    return {
        "source_file_name": roles["source"].removeprefix("train/"),
        "edited_file_name": roles["target"].removeprefix("train/"),
        "edit_instruction": pair.instruction,
        "category": NHR_EDIT.get(pair.sample.task, "other"),
    }


def _openve_row(pair: Pair, store: Store) -> Row:
    roles = put_all(
        pair, store, {"source": f"videos/{pair.key}_original", "target": f"videos/{pair.key}_edited"}
    )
    return {
        "original_video": roles["source"],
        "video": roles["target"],
        "prompt": pair.instruction,
        "edited_type": OPENVE.get(pair.sample.task, "other"),
    }


def _reco_row(pair: Pair, store: Store) -> Row:
    task = RECO[pair.sample.task]
    roles = put_all(
        pair, store, {"source": f"{task}/src_videos/{pair.key}", "target": f"{task}/tar_videos/{pair.key}"}
    )
    return {
        "src_video": roles["source"],
        "tar_video": roles["target"],
        "instruction_final_refine": pair.instruction,
    }


def _text_to_image_row(pair: Pair, store: Store) -> Row:
    put_all(pair, store, {"target": pair.key})
    store.put_bytes(f"{pair.key}.txt", pair.instruction.encode())
    return {}


PUBLISHED = known(
    [
        Format(
            "magicbrush",
            "MagicBrush: parquet of source_img, mask_img, instruction and target_img",
            _magicbrush_row,
            kinds=IMAGE,
            store="parquet",
            schema=lambda: _schema(
                img_id="string",
                turn_index="int",
                source_img="image",
                mask_img="image",
                instruction="string",
                target_img="image",
            ),
            extras=frozenset({"mask"}),
        ),
        Format(
            "omniedit",
            "OmniEdit: parquet of src_img, edited_img, edited_prompt_list, task and grades",
            _omniedit_row,
            kinds=IMAGE,
            store="parquet",
            schema=lambda: _schema(
                omni_edit_id="string",
                task="string",
                src_img="image",
                edited_img="image",
                edited_prompt_list="strings",
                width="int",
                height="int",
                **dict.fromkeys(OMNIEDIT_SCORES.values(), "float"),
            ),
            task_words=OMNIEDIT,
            scores=frozenset(OMNIEDIT_SCORES),
        ),
        Format(
            "ultraedit",
            "UltraEdit: parquet of source_image, edited_image, mask_image and edit_prompt",
            _ultraedit_row,
            kinds=IMAGE,
            store="parquet",
            schema=lambda: _schema(
                source_image="image",
                edited_image="image",
                mask_image="image",
                edit_prompt="string",
                source_caption="string",
                target_caption="string",
            ),
            extras=frozenset({"mask"}),
            captions=frozenset({"source", "target"}),
        ),
        Format(
            "anyedit",
            "AnyEdit: parquet of image_file, edited_file, edit_instruction and edit_type",
            _anyedit_row,
            kinds=IMAGE,
            store="parquet",
            schema=lambda: _schema(
                image_id="string",
                edit_instruction="string",
                edit_type="string",
                image_file="image",
                edited_file="image",
                input="string",
                output="string",
            ),
            task_words=ANYEDIT,
            captions=frozenset({"source", "target"}),
        ),
        Format(
            "imgedit",
            "ImgEdit: parquet of input_images, output_images and prompt beside tars of pictures",
            _imgedit_row,
            kinds=IMAGE,
            store="tar",
            tar_name="Singleturn/{stem}.tar",
            table="parquet",
            table_name="Parquet/edits",
        ),
        Format(
            "sharegpt_4o_image",
            "ShareGPT-4o-Image: text_and_image_to_image.json beside tars of pictures",
            _sharegpt_row,
            kinds=IMAGE,
            store="tar",
            tar_name="text_and_image_to_image_{stem}.tar",
            table="json",
            table_name="text_and_image_to_image",
        ),
        Format(
            "nhr_edit",
            "NHR-Edit: train/metadata.jsonl and train/images",
            _nhr_edit_row,
            kinds=IMAGE,
            table_name="train/metadata",
            task_words=NHR_EDIT,
        ),
        Format(
            "openve",
            "OpenVE-3M: CSV of original_video, video, prompt and edited_type",
            _openve_row,
            kinds=VIDEO,
            table="csv",
            table_name="openve",
            task_words=OPENVE,
        ),
        Format(
            "reco",
            "ReCo-Data: TASK_data_configs.json of src_video, tar_video and instruction_final_refine",
            _reco_row,
            kinds=VIDEO,
            table="json",
            table_name="{shape}_data_configs",
            shape=lambda pair: RECO[pair.sample.task],
            tasks=frozenset(RECO),
            task_words=RECO,
        ),
        Format(
            "text_to_image_2m",
            "text-to-image-2M: WebDataset of KEY.png and KEY.txt, of samples without a source",
            _text_to_image_row,
            kinds=IMAGE,
            store="tar",
            table="none",
            with_sources=False,
        ),
    ]
)
