"""What a run needs before it starts: memory by parameter counts, parts that load, faults told at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.annotators.vace import WanVace
from curation.vlm.errors import AssetError
from curation.vlm.weights import Weights, checkpoint_weights, gib_on_gpu

# billions of parameters, as the papers, model cards and an earlier count of the real repositories have them
KNOWN = {
    "Qwen/Qwen-Image-Edit": {"transformer": 20.43, "text_encoder": 8.29, "vae": 0.13},
    "Wan-AI/Wan2.1-VACE-14B-diffusers": {"transformer": 17.34, "text_encoder": 5.68, "vae": 0.13},
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": {"transformer": 2.15, "text_encoder": 5.68, "vae": 0.13},
    "black-forest-labs/FLUX.1-Kontext-dev": {
        "transformer": 11.9,
        "text_encoder": 0.12,
        "text_encoder_2": 4.76,
        "vae": 0.08,
    },
    "Qwen/Qwen2-VL-7B-Instruct": {"model": 8.29},
    "Qwen/Qwen2.5-VL-7B-Instruct": {"model": 8.29},
    "Qwen/Qwen3-VL-8B-Instruct": {"model": 8.77},
    "IDEA-Research/grounding-dino-base": {"model": 0.23},
    "facebook/sam2.1-hiera-large": {"model": 0.22},
    "depth-anything/Depth-Anything-V2-Small-hf": {"model": 0.02},
    "depth-anything/Depth-Anything-V2-Large-hf": {"model": 0.34},
}


# ---- weights ----------------------------------------------------------------------------------------------


def test_parameters_of_published_checkpoints_are_the_known_ones() -> None:
    for name, parts in KNOWN.items():
        counted = {one.part: one.parameters for one in checkpoint_weights(f"{name}@main")}
        assert {part: round((count or 0) / 1e9, 2) for part, count in counted.items()} == pytest.approx(
            parts, abs=0.011
        ), name


def test_offloaded_parts_take_turns_and_precision_counts() -> None:
    gib = gib_on_gpu(WanVace().weights())[0]
    assert gib == pytest.approx((17.3376 + 5.6809) * 2e9 / 2**30 + 0.1269 * 4e9 / 2**30, rel=1e-3)
    assert gib_on_gpu(WanVace(dtype="float32").weights())[0] == pytest.approx(2 * gib, rel=0.02)
    assert gib_on_gpu(WanVace(offload=True).weights())[0] == pytest.approx(17.3376e9 * 2 / 2**30, rel=1e-3)
    unknown = Weights("somebody/else")
    assert gib_on_gpu([unknown, *WanVace().weights(), *WanVace().weights()]) == (gib, [unknown])
    assert checkpoint_weights("somebody/else")[0].gib is None


def test_a_configuration_that_no_library_knows_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["NoSuchModel"]}))
    with pytest.raises(AssetError, match=r"its parameters cannot be counted \(.*NoSuchModel"):
        checkpoint_weights(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AssetError, match="cannot be counted"):
        checkpoint_weights(str(tmp_path))
