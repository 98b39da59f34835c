"""Dataclasses to JSON values and back, checked field by field.

What does not fit is a ConfigError that names the field.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any

from shards.errors import ConfigError
from shards.limits import check_nesting, shown


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as JSON values (tuples become lists)."""
    value: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return value


def from_dict(cls: Any, value: Any, where: str) -> Any:
    """Build a dataclass from JSON values.

    Raises:
        ConfigError: a field is unknown, of another type, no finite number, or out of range; it is named.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected an object, got {type(value).__name__}")
    hints = typing.get_type_hints(cls)
    unknown = [name for name in value if name not in hints]
    if unknown:
        raise ConfigError(f"{where}: unknown field {shown(unknown[0])}; it has {', '.join(hints)}")
    given = {name: _convert(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return cls(**given)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{where}: {shown(value)} is none of {', '.join(map(str, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where}: expected a list, got {shown(value)}")
        return tuple(_convert(args[0], item, where) for item in value)
    if hint is Any:
        return value
    kind = origin or hint
    if kind is float and type(value) is int and abs(value) < 2**63:
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {kind.__name__}, got {shown(value)}")
    check_finite(value, where)
    return value


def check_finite(value: Any, where: str) -> None:
    """Raise ConfigError for a number that is not finite, in `value` or anywhere in its lists and objects."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value} is not finite")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{where}: {shown(value)} is too large")
    if isinstance(value, dict | list):
        check_nesting(value, where)
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            check_finite(item, f"{where}.{shown(name).strip(chr(39))}")
