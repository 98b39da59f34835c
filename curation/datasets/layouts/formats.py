"""Every format that can be read, by name: own tables and folders, those of trainers, public data sets."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

from curation.datasets.layouts import public
from curation.datasets.layouts.folders import AiToolkit, Folder
from curation.datasets.layouts.rows import Layout, LayoutOptions
from curation.datasets.layouts.tables import Table
from curation.datasets.layouts.trainers import Bagel, DiffSynth, Lance, Ltx, Musubi
from shards.command import nearest
from shards.errors import SettingError, first_line

OWN: dict[str, Callable[[LayoutOptions], Layout]] = {
    made.name: made for made in (Table, Folder, DiffSynth, Musubi, AiToolkit, Ltx, Lance, Bagel)
}


def all_layouts() -> dict[str, Callable[[LayoutOptions], Layout]]:
    """What makes each layout, by the name of its format."""
    return {**OWN, **public.LAYOUTS}


def open_layout(name: str, options: LayoutOptions) -> Layout:
    """The layout of a format, or of a class of one's own by its path, `package.module.Class`.

    Raises:
        SettingError: a format that is not known, a class that cannot be imported or whose `name` is unfit for
            keys, or options that the layout refuses.
    """
    known = all_layouts()
    if name in known:
        return known[name](options)
    module, dot, attribute = name.rpartition(".")
    if not dot:
        raise SettingError(
            f"{name}: no such format{nearest(name, known)}; there are {', '.join(sorted(known))}"
        )
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(f"{name}: no such layout ({first_line(error)})") from None
    layout: Layout = made(options)
    if not re.fullmatch(r"[a-z0-9_-]{1,40}", layout.name):
        raise SettingError(f"{name}: its name {layout.name!r} may have a-z, 0-9, _ and - alone, 40 at most")
    return layout
