"""What an edit loads before it begins: a line at the top of any file can cost every command seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shards.media import write_image

HEAVY = ("transformers", "torch._dynamo", "torch._inductor", "lightning", "gradio", "torchvision", "scipy")
CODE = """
import sys
sys.argv = ["model", *sys.argv[1:]]
from model.__main__ import main
status = main()
print(status, *sorted({%r} & set(sys.modules)))
""".replace("%r", ", ".join(map(repr, HEAVY)))


@pytest.mark.slow
def test_an_edit_loads_what_it_uses(tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", np.full((48, 64, 3), 90, np.uint8))
    words = ["--checkpoint", "nano", "--text", "<image1> Make it red.", "--image1", str(tmp_path / "in.png")]
    command = [sys.executable, "-c", CODE, "edit", *words, "--out", str(tmp_path / "out.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["0"], done.stdout + done.stderr
    assert (tmp_path / "out.png").is_file()
