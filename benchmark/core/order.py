"""The order in which people expect names: `2 cats` before `10 cats`."""

from __future__ import annotations

import re

NUMBER = re.compile("([0-9]{1,18})")


def natural(text: str) -> list[str | int]:
    """A key to sort texts by in which runs of digits count as numbers; texts and numbers alternate."""
    return [int(part) if place % 2 else part for place, part in enumerate(NUMBER.split(text))]
