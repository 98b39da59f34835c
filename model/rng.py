"""Random numbers that depend on names, not on what was drawn before.

So a step is the same on any number of ranks and after any resume.
"""

from __future__ import annotations

import hashlib

import torch


def keyed(*parts: object) -> torch.Generator:
    """A generator that depends on `parts` alone."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
