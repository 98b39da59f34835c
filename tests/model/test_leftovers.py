"""What a killed process leaves beside a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmark.systems.checkpoint_editor import checkpoint_sha256
from model import shipped
from model.inference.checkpoint import load_checkpoint, save_checkpoint
from model.inference.offload import stored_numbers


def test_half_of_a_checkpoint_is_no_part_of_it_and_does_not_stay(tmp_path: Path) -> None:
    network, config = load_checkpoint(shipped(Path("nano")), torch.device("cpu"), None)
    save_checkpoint(network, config, tmp_path)
    told = stored_numbers(tmp_path), checkpoint_sha256(tmp_path)
    half = tmp_path / ".model.0123abcd.tmp.safetensors"  # of a process that was killed while it wrote
    half.write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    assert (stored_numbers(tmp_path), checkpoint_sha256(tmp_path)) == told
    save_checkpoint(network, config, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
