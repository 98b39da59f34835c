"""A worker: a process that loads an editor once, and edits what it is sent until its server is gone."""

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from model.inference.editor import Editor
from model.inference.instruction import check_instruction
from model.serving.work import EditorFacts, Outcome, Work, WorkerConfig
from shards.errors import EditVerseError, first_line

LOG = logging.getLogger(__name__)
EDIT, CANCEL = "edit", "cancel"  # messages to a worker: (kind, Work or id)
READY, UNUSABLE, PROGRESS, FINISHED = "ready", "unusable", "progress", "finished"  # and from one
FAULT = "a fault of the server, which its log tells of"


class EditCancelledError(Exception):
    """Whoever asked for the edit does not want it any more."""


class Inbox:
    """What the server sends, read in a thread, so that a worker whose server was killed ends at once."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.edits: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self.cancelled: set[str] = set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                kind, content = self.connection.recv()
            except (EOFError, OSError):  # the server has ended, however it did
                os._exit(0)
            if kind == EDIT:
                self.edits.put(content)
            else:
                self.cancelled.add(content)


def run_worker(connection: Connection, config: WorkerConfig, device: str, threads: int) -> None:
    """Serve a pool through `connection` for as long as it is open.

    Args:
        config: of the editor.
        device: that this worker's editor is on.
        threads: of its work on a CPU.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's to handle, as SIGTERM is
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(threads)
    inbox = Inbox(connection)
    try:
        editor = Editor.from_pretrained(
            config.checkpoint, device, config.dtype, config.revision, config.lora, config.offload
        )
        if not config.offload:
            editor.text_encoder.encode(["so that it is loaded before the first edit"])
    except (EditVerseError, OSError, torch.OutOfMemoryError) as error:
        connection.send((UNUSABLE, first_line(error)))
        return
    connection.send((READY, facts_of(editor)))
    while True:
        work = inbox.edits.get()
        outcome = edit(editor, work, config, inbox, connection)
        inbox.cancelled.discard(work.id)
        connection.send((FINISHED, outcome))
        if outcome.line == FAULT and device != "cpu":
            return  # after some errors a GPU is of no use to the process any more: it is started again


def facts_of(editor: Editor) -> EditorFacts:
    """What clients may know of an editor."""
    parameters = sum(weight.numel() for weight in editor.dit.parameters())
    return EditorFacts(
        parameters, editor.config.media.frames, editor.multiple, dataclasses.asdict(editor.config.inference)
    )


def edit(editor: Editor, work: Work, config: WorkerConfig, inbox: Inbox, connection: Connection) -> Outcome:
    """Make one edit and write its files; whatever is wrong with it is its outcome, not this worker's end."""
    began = time.monotonic()

    def tick(done: int, total: int) -> None:
        if work.id in inbox.cancelled:
            raise EditCancelledError
        connection.send((PROGRESS, (done, total)))

    def failed(line: str) -> Outcome:
        return Outcome("failed", line, time.monotonic() - began)

    try:
        line = _write_edit(editor, work, config, tick)
        return Outcome("done", line, time.monotonic() - began, work.mask.is_file())
    except EditCancelledError:
        return Outcome("cancelled", "cancelled while it was made", time.monotonic() - began)
    except (EditVerseError, OSError) as error:
        return failed(first_line(error))
    except (MemoryError, torch.OutOfMemoryError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return failed("not enough memory: ask for fewer frames, or for a smaller size")
    except Exception:
        LOG.exception("edit %s", work.id)
        return failed(FAULT)


def _write_edit(editor: Editor, work: Work, config: WorkerConfig, tick: Callable[[int, int], None]) -> str:
    """Make an edit, write its files, and say in a line what was made.

    A video of several windows keeps those that are finished beside its file: who makes it again after this
    process was killed goes on from there.
    """
    asked: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in work.settings.items()
    }
    asked["shortcuts"] = dataclasses.replace(config.shortcuts, **work.settings.get("shortcuts", {}))
    instruction = check_instruction(work.text, work.media, asked.pop("target", None))
    asked |= work.media
    if instruction.makes_image:
        result = editor(instruction, **asked, progress=tick)
        return " · ".join(filter(None, (result.describe(), result.write(work.out))))
    with editor.stream(instruction, out=work.out, **asked, progress=tick) as stream:
        sound = stream.write(work.out)
        return " · ".join(filter(None, (stream.describe(), sound)))
