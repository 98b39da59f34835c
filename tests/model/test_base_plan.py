"""Plans of training from published weights: what is printed, from names and from a folder without weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from model.cli import main
from model.planner.base_plan import lora_cost, sizes_of
from model.planner.cost import by_formula

TRANSFORMER = {
    "_class_name": "WanTransformer3DModel",
    "attention_head_dim": 128,
    "cross_attn_norm": True,
    "eps": 1e-6,
    "ffn_dim": 8960,
    "freq_dim": 256,
    "in_channels": 16,
    "num_attention_heads": 12,
    "num_layers": 30,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "qk_norm": "rms_norm_across_heads",
    "text_dim": 4096,
}
PARTS = {
    "model_index.json": {"_class_name": "WanPipeline"},
    "transformer/config.json": TRANSFORMER,
    "vae/config.json": {"_class_name": "AutoencoderKLWan", "z_dim": 16},
    "text_encoder/config.json": {"model_type": "umt5", "d_model": 4096},
    "scheduler/scheduler_config.json": {"flow_shift": 3.0},
}


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[dict[str, list[float]], str]:
    """The numbers of each line of the table, and all that was printed."""
    assert main(["plan", *options]) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    return {name: [float(n.replace(",", "")) for n in numbers] for name, *numbers in rows}, out


def test_wan_2_1_is_planned_by_name_and_from_its_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in PARTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(value))
    rows, out = printed(capsys, "--base", "wan2.1_1.3b")
    assert printed(capsys, "--base", str(tmp_path))[0] == rows
    assert max(map(len, out.splitlines())) <= 80
    assert "weights: 1.42 B" in out
    assert "a forward pass of 65,520 tokens: 961 TFLOP" in out
    assert "400 TFLOP/s per GPU" in out
    # 64 samples, the forward pass twice and the backward pass, which is two
    for gpus, seconds in zip((1, 8, 64), rows["full: seconds per step"], strict=True):
        assert seconds == pytest.approx(64 * 4 * 961.3 / 400 / gpus, rel=0.01)
    assert rows["full: GPU-hours"] == [pytest.approx(10_000 * 4 * 961.3 / 400 / 3600, abs=0.6)] * 3
    assert rows["full: waited max over mean"] == [1, 1, 1]
    # weights, average, gradients, two moments; of an adapter's weights alone beside the frozen ones
    assert rows["of these state"][0] == pytest.approx(4 * 1.419e9 / 2**30, rel=0.06)
    assert rows["LoRA 16: GiB per GPU"][0] < rows["full: GiB per GPU"][0] / 1.5


def test_lengths_come_from_a_mixture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(
        "rows:\n  a: {group: image, count: 10, tokens: [{frame: [400, 900]}]}\n"
        "  b: {group: video, count: 5, tokens: [{frame: [400, 900], frames: [6, 6], copies: 2}]}\n"
    )
    options = ["--mixture", str(mixture), "--batch_size", "70", "--token_budget", "12000", "--tflops", "100"]
    rows, out = printed(capsys, "--base", "wan2.2_5b", *options, "--steps", "3", "--degree", "1")
    assert "drawn from the mixture; 12,000 tokens" in out
    assert "100 TFLOP/s" in out
    one, eight, many = rows["full: waited max over mean"]
    assert one == 1
    assert 1 <= eight < 1.05
    assert many > 1  # hardly more samples than GPUs


def test_a_frozen_weight_has_one_product_in_the_backward_pass() -> None:
    config = sizes_of("bernini_r_1.3b").config
    full, adapter = by_formula(config), lora_cost(config, 0, recomputed=False)
    linear = 30 * 2 * (6 * 1536**2 + 2 * 1536 * 8960)
    assert full.linear - adapter.linear == linear
    assert adapter.quadratic == full.quadratic
    assert lora_cost(config, 1000, recomputed=True).linear - adapter.linear == pytest.approx(
        linear + 30 * 4 * 1536 * 512 + 2 * 4 * 1000
    )


def test_clips_of_other_autoencoders_have_fewer_tokens() -> None:
    assert {b: sizes_of(b).clip for b in ("wan2.1_1.3b", "wan2.2_5b")} == {
        "wan2.1_1.3b": 32_760,
        "wan2.2_5b": 8_190,
    }
    assert sizes_of("wan2.1_1.3b", (61, 360, 640)).clip == 16 * 22 * 40
    assert sizes_of("wan2.2_5b", (33, 704, 1280)).clip == 9 * 22 * 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "wan9"], "base wan9: no such folder, and none of bernini_r_1.3b, wan2.1_1.3b, wan2.2_5b"),
        (["--base", "wan2.2_a14b"], "base wan2.2_a14b: it has two experts"),
        (["--base", "wan2.1_1.3b", "--ranks", "8"], "--ranks has no use with --base"),
        (["--base", "wan2.1_1.3b", "--tflops", "0"], "tflops must be above 0, got 0.0"),
        (["--base", "wan2.1_1.3b", "--token_budget", "500"], "raise the budget"),
        (["--base", "wan2.1_1.3b", "--frames", "0"], "at least 1 frame of 16x16, not 0 of 480x832"),
        (["--base", "wan2.2_5b", "--height", "16"], "at least 1 frame of 32x32, not 81 of 16x832"),
        (["--frames", "61"], "--frames is of pairs of clips, with --base"),
        (["--ranks", "8"], "name a --mixture to plan, or the --base to start from"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert re.search(re.escape(message), line)
