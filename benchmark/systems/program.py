"""An editor that is a program: files in, a file out, for each item; no shell unless it is asked for."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.core.fingerprint import content_of
from benchmark.core.item import BenchmarkError, Item, Loaded
from benchmark.core.media import IMAGES
from benchmark.systems.edit_cache import Edited, MediaFile
from benchmark.systems.field_files import frames_in, written
from benchmark.systems.item_fields import Fields, Shape, filled, placeholders
from benchmark.systems.memory import Session
from benchmark.systems.per_frame import edited_frames, takes_stills, words_of
from shards.limits import shown
from shards.processes import foreign_environment, own_name, sweep_leavings

OUT = ("out", "out_dir")
LOOK = 0.05  # seconds between looks at how much memory it takes
LINES = 3  # of stderr, in a reason
READ = (
    ".py",
    ".sh",
    ".js",
    ".json",
    ".toml",
    ".yaml",
    ".yml",
    ".safetensors",
    ".pt",
    ".pth",
    ".ckpt",
    ".bin",
)
RESULTS = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif", *IMAGES}


class Program:
    """An `ItemEditor` that runs a command for each item, or each frame if it has `{image}` but no `{video}`.

    Args:
        command: the words, or one text that is split as a shell would: `python edit.py --video {video}
            --prompt {instruction} --out {out}`. Fields in braces stand for an item's
            (`benchmark.systems.item_fields`), media as paths; `{out}` is the file that it writes, `{out_dir}`
            a folder in which it leaves one. A list in the list of words is left out whole where its field is
            missing: [--mask, "{mask?}"].
        folder: where it runs, such as a checkout; a path in the command is relative to it.
        suffix: of `{out}`; that of a video or a picture, as the item is, when None.
        timeout: seconds for one call, after which it and its children are killed.
        memory: GiB of main memory that it and its children may have resident; None for any.
        shape: see `item_fields.Shape`; the item's own files are given when it is left out.
        shell: run the text by `sh -c`, with fields quoted.
        environment: variables beside ours.
        version: a word to change when the program changes; scripts, settings and weights that the command
            names are known by content (`READ`).
        seed: what `{seed}` is.
        device: a GPU's name, such as cuda:1, which is then the only one that it sees.

    Raises BenchmarkError for settings that are none, or a program that is not there.
    """

    def __init__(
        self,
        command: str | Sequence[str | Sequence[str]],
        folder: str | None = None,
        suffix: str | None = None,
        timeout: float = 3600.0,
        memory: float | None = None,
        shape: Mapping[str, Any] | None = None,
        shell: bool = False,
        each_frame: bool = True,
        environment: Mapping[str, str] | None = None,
        version: str = "",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.timeout, self.memory, self.suffix, self.shell = timeout, memory, suffix, shell
        self.folder = Path(folder or ".")
        self.each_frame, self.seed, self.device, self.version = each_frame, seed, device, version
        self.environment = {str(name): str(value) for name, value in (environment or {}).items()}
        self.shape = Shape(**dict(shape or {}))
        if shell and not isinstance(command, str):
            raise BenchmarkError("command: with `shell` it is one text")
        try:
            split = shlex.split(command) if isinstance(command, str) and not shell else command
        except ValueError as error:
            raise BenchmarkError(f"command: {error}") from None
        self.words: list[Any] = [split] if isinstance(split, str) else list(split)
        self.names = placeholders(self.words, OUT)
        if not set(OUT) & set(self.names):
            raise BenchmarkError("command: names no {out} or {out_dir}, so nothing could come back")
        if not self.folder.is_dir():
            raise BenchmarkError(f"command: {self.folder} is no folder")
        if not shell and self._found() is None:
            raise BenchmarkError(f"command: {shown(self.words[0])} is no program that can be run")

    def _found(self) -> str | None:
        """The program's path: of a name with a slash relative to its folder, else as a shell finds it."""
        name = str(self.words[0]) if self.words else ""
        return shutil.which(str(self.folder.absolute() / name) if "/" in name else name)

    @cached_property
    def files(self) -> dict[str, str]:
        """The files that the command names and reads, with the hashes of their content."""
        texts = self.words[0].split() if self.shell else [w for w in self.words[1:] if isinstance(w, str)]
        places = {text: self.folder / text for text in texts if "{" not in text and text.endswith(READ)}
        return {text: str(content_of(str(place))) for text, place in places.items() if place.is_file()}

    def depends(self, item: Item) -> list[Any]:
        """The command, the files that it names, and the item's media and words that it is given."""
        settings = [self.shell, self.each_frame, self.suffix, self.environment, self.version, self.seed]
        words = words_of(item, self.names)
        return ["program", self.words, self.files, astuple(self.shape), settings, item.content, words]

    def edit(self, item: Item, loaded: Loaded) -> Edited:
        """See `ItemEditor`; a clip's result is kept as the file that came."""
        scratch = Path(tempfile.gettempdir()) / f"editverse_{os.getuid()}"
        sweep_leavings(scratch, max_age=math.inf)
        folder = scratch / own_name()
        folder.mkdir(parents=True, mode=0o700)
        peaks: list[int] = []

        def run(fields: Fields) -> Path:
            place = folder / str(len(peaks))
            place.mkdir()
            path, peak = self._run(fields, place)
            peaks.append(peak)
            return path

        try:
            if self.each_frame and takes_stills(self.names):
                frames = edited_frames(
                    item, loaded, self.shape, self.seed, True, lambda fields: frames_in(run(fields))
                )
                return Edited({"edit": frames}, loaded.fps, max(peaks))
            fields = Fields(item, loaded, self.shape, self.seed)
            path = run(fields)
            if path.is_file() and fields.kept == len(fields.source):
                return Edited({"edit": MediaFile.read(path)}, loaded.fps, max(peaks))
            return Edited({"edit": frames_in(path)[: fields.kept]}, loaded.fps, max(peaks))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, fields: Fields, folder: Path) -> tuple[Path, int]:
        """(the file or folder of pictures that it made, bytes of memory that it took at most)."""
        suffix = self.suffix or (".mp4" if fields.frame is None and len(fields.source) > 1 else ".png")
        out, out_dir = folder / f"out{suffix}", folder / "out"
        if "out_dir" in self.names:
            out_dir.mkdir()
        places: dict[str, Any] = {"out": out, "out_dir": out_dir}
        given = {
            name: places[name] if name in places else written(fields, name, folder) for name in self.names
        }
        given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        words = self._filled(given)
        log = folder / "stderr"
        peak = self._wait(words, log)
        if out.is_file() and out.stat().st_size:
            return out, peak
        found = sorted(p for p in out_dir.rglob("*") if p.is_file() and p.suffix.lower() in RESULTS)
        if len(found) == 1:
            return found[0], peak
        if found and all(p.parent == found[0].parent and p.suffix.lower() in IMAGES for p in found):
            return found[0].parent, peak
        what = (
            f"left {len(found)} media, {found[0].name} first, where one"
            if found
            else "wrote no result where one"
        )
        raise BenchmarkError(f"it ended well and {what} was expected{said(log)}")

    def _filled(self, given: Mapping[str, Any]) -> list[str]:
        if self.shell:
            quoted = {
                name: None
                if value is None
                else shlex.join(map(str, value if isinstance(value, list) else [value]))
                for name, value in given.items()
            }
            return ["sh", "-c", str(filled(self.words[0], quoted.get))]
        return [word for one in self.words for word in _words(one, given)]

    def _wait(self, words: list[str], log: Path) -> int:
        """Run it to its end; BenchmarkError with its last words when it fails or goes beyond its limits."""
        begin = time.monotonic()
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("watch.py")), *words],
                cwd=self.folder,
                env=self._variables(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
            session = Session(process.pid)
            try:
                while True:
                    resident = session.look()
                    if self.memory is not None and resident > self.memory * 2**30:
                        raise BenchmarkError(
                            f"it took {resident / 2**30:.2f} GiB of memory, {self.memory:g} are allowed, and "
                            "was killed"
                        )
                    left = self.timeout - (time.monotonic() - begin)
                    if left <= 0:
                        raise BenchmarkError(
                            f"it did not end within {self.timeout:g} s and was killed{said(log)}"
                        )
                    try:
                        status = process.wait(min(LOOK, left))
                        break
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                with contextlib.suppress(ProcessLookupError):  # what it left running goes too
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                assert process.stdin is not None
                process.stdin.close()
        if status:
            how = f"was killed by signal {status - 128}" if status > 128 else f"ended with status {status}"
            raise BenchmarkError(f"it {how}{said(log)}")
        return session.peak_bytes

    def _variables(self) -> dict[str, str]:
        ours = foreign_environment()
        kind, _, number = self.device.partition(":")
        if kind == "cuda" and number:
            visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
            ours["CUDA_VISIBLE_DEVICES"] = visible[int(number)] if int(number) < len(visible) else number
        return ours | self.environment

    def release(self) -> None:
        """Nothing is held between items."""


def _words(one: Any, given: Mapping[str, Any]) -> list[str]:
    """A word of the command, or a list of them, with fields filled in; nothing where one is left out."""
    if isinstance(one, list | tuple):
        parts = [_words(word, given) for word in one]
        return [word for part in parts for word in part] if all(parts) else []
    value = filled(str(one), given.get)
    if isinstance(value, list):
        return [str(part) for part in value]
    return [] if value is None else [str(value)]


def said(log: Path) -> str:
    """The last lines of a log behind a colon; "" when it says nothing."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        text = file.read().decode(errors="replace")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    told = " | ".join(line[:200] for line in lines[-LINES:])
    return f": {''.join(c for c in told if c.isprintable())}" if told else ""
