"""The canonical form of JSON values, and its hash.

Equal values have equal hashes, whatever the order of their fields.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass
from typing import Any, Literal

# Hashes name what is stored: intermediate results, scores, edits, encoded samples. They began as three
# helpers that wrote the same value in different bytes. A change to one now would leave all that is stored
# under it unfound, so each keeps its own; new ones take the first.
#
# compact: no spaces, ASCII; keys of the curation workspace, identities of networks.
# compact_utf8: no spaces, other letters as they are; addresses of scores and edits.
# spaced: a space behind each comma and colon, ASCII, as json writes by itself; clips, items, encodings.
Form = Literal["compact", "compact_utf8", "spaced"]


def canonical(value: Any, form: Form = "compact") -> str:
    """JSON that is equal for equal values; TypeError for what is neither JSON nor a dataclass of such."""
    return json.dumps(
        value,
        sort_keys=True,
        separators=(", ", ": ") if form == "spaced" else (",", ":"),
        ensure_ascii=form != "compact_utf8",
        default=_plain,
    )


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a hash")


def digest(value: Any, form: Form = "compact") -> str:
    """Hexadecimal sha256 of a value's canonical JSON in UTF-8."""
    return hashlib.sha256(canonical(value, form).encode()).hexdigest()
