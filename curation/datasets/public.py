"""The public data sets that are read, by the names that `import` takes."""

from __future__ import annotations

from collections.abc import Callable

from curation.datasets.rows import Layout, LayoutOptions

LAYOUTS: dict[str, Callable[[LayoutOptions], Layout]] = {}
