"""Which device work runs on, and whether it is there; torch is imported only to find out."""

from __future__ import annotations

import sys

from shards.errors import SettingError, first_line


def choose_device(device: str, setting: str = "--device") -> str:
    """The device that was asked for, `auto` being the first GPU or else the processor.

    Args:
        device: auto, or as torch names it, e.g. cpu, cuda or cuda:1.

    Raises:
        SettingError: naming the setting, when this machine has no such device.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        if not torch.cuda.is_available():
            return "cpu"
        print(f"{setting} auto: {torch.cuda.get_device_name(0)}", file=sys.stderr)
        return "cuda"
    advice = f"use {setting} cpu"
    if device.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        raise SettingError(f"{setting} {device}: no CUDA device on this machine; {advice}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # no such kind, number, or build of torch
        raise SettingError(f"{setting} {device}: {first_line(error).rstrip('.')}; {advice}") from None
    return device
