"""The one base of the errors that a user can mend, and how an error is said in one line."""

from __future__ import annotations


class EditVerseError(Exception):
    """A fault of what was asked for or given, not of this code.

    Its message is one line that names the file, field or setting at fault and says what to do. Commands print
    it and exit with status 2 (`shards.command`); any other exception is a fault of ours: a traceback.
    """


class SettingError(EditVerseError, ValueError):
    """A setting, or an argument of a public function, that cannot be used; the message names it."""


class MediaError(EditVerseError, ValueError):
    """A file that cannot be read or written as media; the message names the file and the fault."""


def first_line(error: BaseException) -> str:
    """The first non-empty line of an exception's message, else the name of its class."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


class ConfigError(EditVerseError, ValueError):
    """A configuration or checkpoint that cannot be used; the message names the file or field."""
