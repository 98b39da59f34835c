"""Every format that can be read, by name: own tables and folders, those of trainers, public data sets."""

from __future__ import annotations

from collections.abc import Callable

from curation.datasets import public
from curation.datasets.folders import AiToolkit, Folder
from curation.datasets.rows import Layout, LayoutOptions
from curation.datasets.tables import Table
from curation.datasets.trainers import Bagel, DiffSynth, Lance, Ltx, Musubi
from shards.command import nearest
from shards.errors import SettingError

OWN: dict[str, Callable[[LayoutOptions], Layout]] = {
    made.name: made for made in (Table, Folder, DiffSynth, Musubi, AiToolkit, Ltx, Lance, Bagel)
}


def all_layouts() -> dict[str, Callable[[LayoutOptions], Layout]]:
    """What makes each layout, by the name of its format."""
    return {**OWN, **public.LAYOUTS}


def open_layout(name: str, options: LayoutOptions) -> Layout:
    """The layout of a format; SettingError for a format that is not known, or options that it refuses."""
    known = all_layouts()
    if name not in known:
        raise SettingError(
            f"{name}: no such format{nearest(name, known)}; there are {', '.join(sorted(known))}"
        )
    return known[name](options)
