"""Who may use a service: a file of names and of hashes of their tokens.

A line is the SHA-256 of a token, a space, and the name of who has it. A token has 256 random bits, so that it
cannot be found by its hash, and the file is of no use to who reads it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from shards.errors import SettingError
from shards.limits import read_text

LINE = re.compile(r"([0-9a-f]{64}) ([A-Za-z0-9._@-]{1,80})")
MAX_TOKEN = 200  # characters


class Tokens:
    """The file, read again whenever it has changed: a line that is removed is a token that opens nothing.

    Raises:
        SettingError: there is no such file, a line of it is none, or it holds no token.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = (0, 0)
        self._names: dict[str, str] = {}
        self._read()

    def owner(self, token: str) -> str | None:
        """Whose token this is; None if nobody's. Every line is compared, in constant time each."""
        self._read()
        sent = hash_of(token) if len(token) <= MAX_TOKEN else ""
        found = None
        for known, name in self._names.items():
            if hmac.compare_digest(known, sent):
                found = name
        return found

    def _read(self) -> None:
        try:
            facts = self.path.stat()
            if (version := (facts.st_mtime_ns, facts.st_size)) == self._version:
                return
            lines = read_text(self.path).splitlines()
        except OSError as error:
            raise SettingError(f"--tokens {self.path}: {error.strerror}") from None
        names = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            found = LINE.fullmatch(line.strip())
            if found is None:
                raise SettingError(f"--tokens {self.path}: line {number} is no hash and name; make one anew")
            names[found[1]] = found[2]
        if not names:
            raise SettingError(f"--tokens {self.path}: holds no token; `python -m model token` makes one")
        self._names, self._version = names, version


def hash_of(token: str) -> str:
    """The SHA-256 of a token, in hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def add_token(path: Path, name: str) -> str:
    """Make a token, add its line to a file that only its owner reads, and return it.

    Raises:
        SettingError: the name has other characters than letters, digits and ._@-, or is there already.
    """
    if not LINE.fullmatch(f"{'0' * 64} {name}"):
        raise SettingError(f"--name {name!r}: up to 80 letters, digits and ._@-")
    token = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read()
        if any(line.split()[1:] == [name] for line in text.splitlines()):
            raise SettingError(f"--name {name}: has a token in {path}; remove its line for another one")
        file.write(f"{'' if text.endswith(chr(10)) or not text else chr(10)}{hash_of(token)} {name}\n")
    return token
