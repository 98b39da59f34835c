"""`python -m model serve`, `token` and `batch`: edits for other programs, and many at once."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from model.acceleration.config import NO_SHORTCUTS, Shortcuts
from model.serving.batch import run_batch
from model.serving.config import ServeConfig
from model.serving.tokens import add_token
from model.serving.work import WorkerConfig
from shards.errors import SettingError
from shards.help_pages import help_page

WEIGHTS = ("what of the model is loaded, and how", ("lora", "dtype", "revision", "offload"))


@help_page(
    sections={
        "limits": (
            "how much is taken and kept",
            (
                "queue",
                "max_upload_mb",
                "max_frames",
                "max_steps",
                "edit_timeout",
                "keep_hours",
                "max_stored_mb",
                "grace_seconds",
            ),
        ),
        "weights": WEIGHTS,
    }
)
def serve(
    checkpoint: str,
    out: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    tokens: Path | None = None,
    allowed_hosts: list[str] = [],  # noqa: B006 (never changed)
    insecure: bool = False,
    workers: int = 0,
    device: str = "auto",
    queue: int = 32,
    max_upload_mb: int = 200,
    max_frames: int = 300,
    max_steps: int = 100,
    edit_timeout: float = 3600.0,
    keep_hours: float = 24.0,
    max_stored_mb: int = 10_000,
    grace_seconds: float = 30.0,
    lora: Path | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    revision: str | None = None,
    offload: bool = False,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> int:
    """Serve edits over HTTP; what was taken in goes on after a restart.

    Args:
        checkpoint: folder with config.json and model.safetensors, a finished run's folder, or a hub id.
        out: folder of edits, uploads and results.
        host: address to listen on; others than the loopback address need tokens.
        port: to listen on; 0 for any that is free.
        tokens: file of those who may use it, see `python -m model token`; everybody where not given.
        allowed_hosts: names under which a proxy serves it, besides localhost and the host.
        insecure: let others reach it without tokens.
        workers: processes that edit, each with a model of its own; one per GPU, or one on a CPU, where 0.
        device: of the models: auto, cpu or cuda.
        queue: edits that may wait; more are refused.
        max_upload_mb: largest request, in megabytes.
        max_frames: longest video that is edited.
        max_steps: most solver steps of an edit.
        edit_timeout: seconds that an edit may take, once it is begun; 0 for no limit.
        keep_hours: for which uploads and results are kept.
        max_stored_mb: uploads and results together, in megabytes; the oldest results go first.
        grace_seconds: for which edits that were begun may go on when it is told to end.
        lora: an adapter to merge into the weights: its folder, its run's, a LoRA file, or a hub id.
        dtype: of the model's weights; the file's when not given.
        revision: branch, tag or commit of a hub id.
        offload: have encoders and transformer on the device one at a time, for a small card.
        shortcuts: what of the network's work is left out, where an edit asks for no others.
    """
    size = (queue, max_upload_mb, max_frames, max_steps)
    limits = (*size, edit_timeout, keep_hours, max_stored_mb, grace_seconds)
    config = ServeConfig(out, host, port, tokens, tuple(allowed_hosts), *limits, insecure=insecure)
    missing = [name for name in ("fastapi", "multipart", "uvicorn") if find_spec(name) is None]
    if missing:
        raise SettingError(f"serving needs {' and '.join(missing)}: pip install '.[serve]'")
    from model.serving.server import serve as serve_edits  # brings fastapi and uvicorn, extras

    serve_edits(config, WorkerConfig(checkpoint, dtype, revision, lora, offload, device, workers, shortcuts))
    return 0


def token(tokens: Path, name: str) -> int:
    """Make a token for someone who is to use a service, and print it; only its hash is kept.

    Args:
        tokens: file that the line is added to, which `serve --tokens` reads, also while it runs.
        name: of who has it. Their edits are seen by this name alone.
    """
    print(add_token(tokens, name))
    return 0


@help_page(sections={"weights": WEIGHTS})
def batch(
    table: Path,
    out: Path,
    checkpoint: str,
    workers: int = 0,
    device: str = "auto",
    lora: Path | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    revision: str | None = None,
    offload: bool = False,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> int:
    """Make the edits of a table; an interrupted call goes on, and rows that are done are not made again.

    Args:
        table: CSV with a row for each edit: `text`, files in `video1`, `image1`, `mask` and so on relative to
            the table, `out` relative to --out; settings such as `seed`, `steps` or `frames` as columns.
        out: folder of the results, and of results.csv, which says of every row what became of it.
        checkpoint: folder with config.json and model.safetensors, a finished run's folder, or a hub id.
        workers: processes that edit, each with a model of its own; one per GPU, or one on a CPU, where 0.
        device: of the models: auto, cpu or cuda.
        lora: an adapter to merge into the weights: its folder, its run's, a LoRA file, or a hub id.
        dtype: of the model's weights; the file's when not given.
        revision: branch, tag or commit of a hub id.
        offload: have encoders and transformer on the device one at a time, for a small card.
        shortcuts: what of the network's work is left out, where an edit asks for no others.
    """
    config = WorkerConfig(checkpoint, dtype, revision, lora, offload, device, workers, shortcuts)
    return run_batch(table, out, config)
