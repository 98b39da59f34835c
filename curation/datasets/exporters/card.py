"""The card of a data set on the Hugging Face Hub: README.md with a YAML header that `datasets` loads by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

from curation.datasets.exporters.census import Census, hub_license, hub_licenses
from curation.datasets.exporters.shapes import as_feature

T = TypeVar("T", str, tuple[str, str, str, str])
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGER = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))
STEPS_SHOWN = 60  # rows of the table of steps
TAGS = ("video-editing", "image-editing", "webdataset", "editverse")


def card(name: str, sets: Mapping[str, Census], folders: Mapping[str, str], address: str) -> str:
    """The whole README.md.

    Args:
        name: of the data set, in words.
        sets: what each configuration holds.
        folders: where its shards lie, relative to the card; "" beside it.
        address: by which the text tells to load it.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    samples = sum(census.samples for census in sets.values())
    licenses = sum((census.licenses for census in sets.values()), Counter[str]())
    crossings = sum((census.crossings for census in sets.values()), Counter[str]())
    tasks = sorted({task for census in sets.values() for task in census.tasks})
    ids = hub_licenses(licenses)
    other = sorted(text for text in licenses if hub_license(text) == "other")
    data = DatasetCardData(
        pretty_name=name,
        license=ids[0] if len(ids) == 1 else ids,
        task_categories=sorted(crossings),
        size_categories=size_category(samples),
        tags=list(dict.fromkeys([*TAGS, *(task.replace("_", "-") for task in tasks)])),
        configs=[_config(config, census, folders[config]) for config, census in sets.items()],
        dataset_info=[
            {"config_name": config, "features": features(census)} for config, census in sets.items()
        ],
        license_name="; ".join(other)[:200] or None,  # which the Hub wants for "other"
    )
    body = _text(name, sets, folders, licenses, address)
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def size_category(samples: int) -> str:
    """The Hub's word for a number of samples."""
    return next(
        (word for most, word in (*SIZES, *LARGER) if samples < most),
        "n>1T" if samples >= 10**12 else "1B<n<10B",
    )


def _config(name: str, census: Census, folder: str) -> dict[str, Any]:
    before = f"{folder}/" if folder else ""
    files = [
        {"split": split, "path": f"{before}{split}-*.tar"} for split in sorted(census.splits, reverse=True)
    ]
    return {"config_name": name, "data_files": files}


def features(census: Census) -> list[dict[str, Any]]:
    """The columns that `datasets` gives a sample: its JSON, and every element that any sample has.

    Without them `datasets` takes those of the first five samples and silently drops what others have besides.
    """
    elements = [(file, "image" if file.endswith(".png") else "video") for file in sorted(census.files)]
    own = [("__key__", "string"), ("__url__", "string")]  # of its reader of WebDataset
    return [
        as_feature("json", census.document),
        *({"name": name, "dtype": dtype} for name, dtype in (*elements, *own)),
    ]


# ---- the text ----------------------------------------------------------------------------------------------


def _text(
    name: str,
    sets: Mapping[str, Census],
    folders: Mapping[str, str],
    licenses: Counter[str],
    address: str,
) -> str:
    samples = sum(census.samples for census in sets.values())
    parts = [
        f"# {name}",
        f"{samples} samples of in-context editing: a text that places pictures, videos and masks "
        "(`<video1> Remove the dog. <video2>`), and the elements that may be generated.",
        "## Tasks",
        _task_table(sets),
        "## Licences",
        "Of the clip that a sample was made from, as its `provenance.clip.license` says. Models that made a "
        "part of a sample have licences of their own: see below.",
        _table(["licence", "samples"], [[text, str(count)] for text, count in _by_count(licenses)]),
        "## How it was made",
        "Every sample names the clip, with its sha256, and the steps that it went through "
        "(`provenance.steps`). All steps, and how many samples went through each:",
        _step_table(sets),
        "## Loading",
        _loading(sets, folders, address),
    ]
    return "\n\n".join(parts) + "\n"


def _task_table(sets: Mapping[str, Census]) -> str:
    rows = []
    for config, census in sets.items():
        for task, count in sorted(census.tasks.items()):
            total = sum(count.splits.values())
            elements = ", ".join(
                element if number == total else f"{element} ({number})"
                for element, number in sorted(count.elements.items())
            )
            length = f"{count.seconds:.0f}" if count.seconds else ""
            splits = [str(count.splits["train"]), str(count.splits["heldout"])]
            rows.append([config, task, *splits, elements, str(count.frames), length])
    head = ["configuration", "task", "train", "heldout", "elements", "target frames", "seconds"]
    return _table(head, rows)


def _step_table(sets: Mapping[str, Census]) -> str:
    steps = sum((census.steps for census in sets.values()), Counter[tuple[str, str, str, str]]())
    rows = [[*step[:3], step[3][:16], str(count)] for step, count in _by_count(steps)[:STEPS_SHOWN]]
    text = _table(["stage", "backend", "model", "revision", "samples"], rows)
    return text + (f"\n\nand {len(steps) - STEPS_SHOWN} more" if len(steps) > STEPS_SHOWN else "")


def _by_count(counter: Counter[T]) -> list[tuple[T, int]]:
    """The most frequent first, those of one count in their own order."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _loading(sets: Mapping[str, Census], folders: Mapping[str, str], address: str) -> str:
    config = next(iter(sets))
    split = sorted(sets[config].splits, reverse=True)[0]
    folder = f"{folders[config]}/" if folders[config] else ""
    named = f'"{address}", "{config}"' if len(sets) > 1 else f'"{address}"'
    return f"""```python
from datasets import load_dataset  # with torchcodec, which decodes the videos

samples = load_dataset({named}, split="{split}", streaming=True)
```

```python
import webdataset  # the shards are plain tars: KEY.json, KEY.video1.mp4, KEY.mask.mkv ...

samples = webdataset.WebDataset("{folder}{split}-000000.tar").decode()
```

```python
from shards.reader import ShardSet  # EditVerse's own reader, from this folder or an hf:// URL

record = ShardSet("{folder.rstrip("/") or "."}", "{split}")[0]
record.sample.text, record.pixels(record.sample.targets[0])  # uint8 [frames, height, width, 3]
```"""
