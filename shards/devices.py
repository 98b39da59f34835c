"""Whether a device that was asked for is there; torch is imported only to find out."""

from __future__ import annotations

from shards.errors import SettingError, first_line


def check_device(device: str, setting: str = "--device") -> None:
    """Raise SettingError, naming the setting, when this machine has no such device.

    Args:
        device: as torch names it, e.g. cpu, cuda or cuda:1.
    """
    if device == "cpu":
        return
    import torch

    advice = f"use {setting} cpu"
    if device.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        raise SettingError(f"{setting} {device}: no CUDA device on this machine; {advice}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # no such kind, number, or build of torch
        raise SettingError(f"{setting} {device}: {first_line(error).rstrip('.')}; {advice}") from None
