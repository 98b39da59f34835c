"""The type that JSON documents have in common, as `datasets` writes the columns of a data set."""

from __future__ import annotations

from typing import Any

# None: nothing is known yet; a string: a scalar's dtype; a list of one: of its items; a dict: of its fields.
Shape = Any


def merge(shape: Shape, value: Any) -> Shape:
    """The type of a value and of all that `shape` is of; what do not agree are strings."""
    if value is None:
        return shape
    if isinstance(value, dict):
        fields = dict(shape) if isinstance(shape, dict) else {}
        return fields | {name: merge(fields.get(name), item) for name, item in value.items()}
    if isinstance(value, list):
        items = shape[0] if isinstance(shape, list) else None
        for item in value:
            items = merge(items, item)
        return [items]
    dtype = {bool: "bool", int: "int64", float: "float64"}.get(type(value), "string")
    if shape in (None, dtype):
        return dtype
    return "float64" if {shape, dtype} == {"int64", "float64"} else "string"


def as_feature(name: str, shape: Shape) -> dict[str, Any]:
    """A column in the YAML of a card, by the rules of `datasets.Features`."""
    if isinstance(shape, dict):
        return {"name": name, "struct": [as_feature(field, shape[field]) for field in sorted(shape)]}
    if isinstance(shape, list):
        (items,) = shape
        if isinstance(items, dict):
            return {"name": name, "list": [as_feature(field, items[field]) for field in sorted(items)]}
        return {"name": name, "list": items if isinstance(items, str) else "string"}
    return {"name": name, "dtype": shape or "string"}
