"""Ways for a stand-in to fail, chosen by FAIL in the environment."""

from __future__ import annotations

import os
import signal
import sys
import time

FAIL = os.environ.get("FAIL", "")


def at_import() -> None:
    """What goes wrong before anything is loaded."""
    if FAIL == "foreign":
        import no_such_package_of_theirs  # noqa: F401
    if FAIL == "weights":
        raise OSError(
            "Error no file named diffusion_pytorch_model.bin found in directory weights/sd-vae-ft-mse"
        )


def at_work() -> None:
    """What goes wrong with a clip."""
    if FAIL == "crash":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if FAIL == "memory":
        raise MemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if FAIL == "exit":
        print("Error: Could not open video.")
        sys.exit()
    if FAIL == "die":
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if FAIL == "hang":
        print("sampling", flush=True)
        time.sleep(600)
    if FAIL == "warn":
        print("Warning: xFormers is not available\n" * 50 + '{"id": 1, "ok": false}', flush=True)
        os.write(1, b"a line of native code\n")


def shape(frames: list, fps: float) -> tuple[list, float]:
    """The result, perhaps of another size, number or rate."""
    if FAIL == "size":
        frames = [frame[::2, ::2].copy() for frame in frames]
    if FAIL == "count":
        frames = frames[: len(frames) // 2]
    return frames, (30 if fps != 30 else 24) if FAIL == "rate" else fps
