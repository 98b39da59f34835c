"""The error of a model file or package that is missing.

It stops a run, since no clip could do without.
"""

from __future__ import annotations

from shards.errors import EditVerseError


class AssetError(EditVerseError, RuntimeError):
    """A file that could not be fetched or is not what it should be; one line that says what to do."""
