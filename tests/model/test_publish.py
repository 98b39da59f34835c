"""Models to the hub: the card says what the run's folder says, and what is sent can be loaded again.

The hub is a server of the test's own that speaks the protocol of an upload; huggingface_hub asks it by HTTP.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from model import Editor
from model.cli import main
from model.inference.wan_lora import FIRST
from model.training.config import FitConfig
from model.training.trainer import fit
from shards.writer import Item, write_shards
from tests.model.hub_server import running
from tests.model.page_server import ROOT

TOKEN = "hf_secretoftest"
LICENCES = ["CC-BY-4.0", "CC0-1.0", "CC0-1.0", "held out"]


@pytest.fixture(scope="module")
def run(
    fit_config: FitConfig, make_items: Callable[..., list[Item]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run of two steps on samples of two licences."""
    root = tmp_path_factory.mktemp("publish")
    (root / "media").mkdir()
    items = []
    for (sample, files), licence in zip(make_items(root / "media"), LICENCES, strict=True):
        clip = sample.provenance.clip.model_copy(update={"license": licence})
        provenance = sample.provenance.model_copy(update={"clip": clip})
        items.append((sample.model_copy(update={"provenance": provenance}), files))
    write_shards(root / "shards", items, max_samples=2)
    data = dataclasses.replace(fit_config.data, shards=(str(root / "shards"),))
    train = dataclasses.replace(fit_config.train, steps=2)
    fit(dataclasses.replace(fit_config, data=data, train=train), root / "run")
    return root / "run"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def header_and_body(page: str) -> tuple[dict[str, Any], str]:
    _, header, body = page.split("---\n", 2)
    value: dict[str, Any] = yaml.safe_load(header)
    return value, body


def test_a_dry_run_writes_the_card_and_lists_the_files(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"value": 21.5, "low": 20.25, "high": 22.75, "scored": 4, "failed": 0, "clusters": 4}
    summary = {"suite": {"name": "heldout", "version": 3}, "items": 4, "checkpoint_sha256": "ab" * 32}
    summary |= {"metrics": {"psnr": {}}, "table": {"all": {"model": {"psnr": scores}}}}
    (copy / "bench").mkdir()
    (copy / "bench" / "summary.json").write_text(json.dumps(summary))
    words = ["push", "--checkpoint", str(copy), "--repo", "me/tiny", "--dry-run", "--license", "cc-by-4.0"]
    assert main([*words, "--datasets", '["me/pairs"]']) == 0
    told = capsys.readouterr().out
    assert "config.json: " in told
    assert "model.safetensors: " in told
    assert "nothing was sent" in told
    page = (copy / "README.md").read_text()
    header, body = header_and_body(page)
    assert header["license"] == "cc-by-4.0"
    assert header["datasets"] == ["me/pairs"]
    assert header["library_name"] == "editverse"
    assert "base_model" not in header
    assert "| CC0-1.0 | 2 |" in body
    assert "| CC-BY-4.0 | 1 |" in body
    assert "held out" not in body  # what was not trained on
    assert "| shards | object_removal | CC0-1.0 | 2 |" in body
    code = json.loads((copy / "provenance.json").read_text())["code"]
    assert code["version"] in body
    assert code["commit"] is None or code["commit"] in body
    assert "  steps: 2\n" in body
    assert "| model | 21.5 (20.25 to 22.75) |" in body
    assert str(copy.parent) not in page
    assert str(Path.home()) + "/" not in page


def test_what_is_not_known_is_said(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards that are gone or others now, and a licence that nobody named."""
    words = ["push", "--checkpoint", str(copy), "--repo", "me/tiny", "--dry-run"]
    facts = json.loads((copy / "provenance.json").read_text())
    facts["data"]["shards"]["shards"] = ["/nowhere/shards"]
    (copy / "provenance.json").write_text(json.dumps(facts))
    assert main(words) == 0
    assert "--license" in capsys.readouterr().out
    header, body = header_and_body((copy / "README.md").read_text())
    assert header["license"] == "unknown"
    assert "licences were not counted: shards: no manifest.jsonl here" in body
    (copy / "provenance.json").unlink()
    assert main(words) == 0
    assert "licences were not counted: provenance.json: No such file" in (copy / "README.md").read_text()


def test_a_card_names_the_first_base_and_ends_with_what_is_given(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((copy / "run.json").read_text())
    for name, start in (("first", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"), ("run", str(tmp_path / "first"))):
        record["config"]["train"]["init_from"] = start
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    about = tmp_path / "about.md"
    about.write_text("## What it took\n\nTwo days.\n")
    words = ["push", "--checkpoint", str(copy), "--repo", "me/tiny", "--dry_run"]
    assert main([*words, "--about", str(about)]) == 0
    header, body = header_and_body((copy / "README.md").read_text())
    assert header["base_model"] == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    assert header["license"] == "apache-2.0"
    assert "Wan-AI/Wan2.1-T2V-1.3B-Diffusers, by way of first (apache-2.0)." in body
    assert body.endswith("## What it took\n\nTwo days.\n")
    record["config"]["train"]["init_from"] = "nano"
    (tmp_path / "first" / "run.json").write_text(json.dumps(record))
    assert main(words) == 0
    header, body = header_and_body((copy / "README.md").read_text())
    assert (header["license"], header.get("base_model")) == ("apache-2.0", None)
    assert "Started from nano, by way of first (apache-2.0)." in body
    capsys.readouterr()
    assert main([*words, "--about", str(tmp_path / "none.md")]) == 2
    assert "--about" in capsys.readouterr().err


def test_an_adapter_names_its_base_and_is_all_that_is_sent(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run that started from published weights, as its record says."""
    record = json.loads((copy / "run.json").read_text())
    record["config"]["train"]["init_from"] = "ByteDance/Bernini-R-1.3B-Diffusers"
    (copy / "run.json").write_text(json.dumps(record))
    (copy / "adapter").mkdir()
    (copy / "adapter" / FIRST).write_bytes(b"any")
    assert main(["push", "--checkpoint", str(copy), "--repo", "me/lora", "--dry-run"]) == 0
    assert "model.safetensors" not in capsys.readouterr().out
    header, body = header_and_body((copy / "README.md").read_text())
    assert header["base_model"] == "ByteDance/Bernini-R-1.3B-Diffusers"
    assert header["base_model_relation"] == "adapter"
    assert header["license"] == "apache-2.0"
    assert "lora" in header["tags"]
    assert 'lora="me/lora"' in body


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("name", "--repo 'tiny': owner/name"),
        ("no run", "run.json: No such file .*the card is filled from a run's folder"),
        ("no weights", "not found"),
        ("family", "first python -m model export --format diffusers"),
        ("path", "vae.init_args.path '/data/vae' is a folder of this machine"),
    ],
)
def test_what_cannot_be_published_is_one_line(
    copy: Path, capsys: pytest.CaptureFixture[str], change: str, words: str
) -> None:
    config = copy / "checkpoint" / "config.json"
    value = json.loads(config.read_text())
    if change == "no run":
        (copy / "run.json").unlink()
    elif change == "no weights":
        (copy / "checkpoint" / "model.safetensors").unlink()
    elif change == "family":
        config.write_text(json.dumps(value | {"transformer": {"class_path": "model.net.wan.WanTransformer"}}))
    elif change == "path":
        value["vae"]["init_args"]["path"] = "/data/vae"
        config.write_text(json.dumps(value))
    name = "tiny" if change == "name" else "me/tiny"
    assert main(["push", "--checkpoint", str(copy), "--repo", name, "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert re.search(words, told)
    assert told.count("\n") == 1


SCRIPT = """
import sys
from model import Editor
from model.cli import main
from model.inference.pretrained import find_adapter
run, out = sys.argv[1:]
words = ["push", "--checkpoint", run, "--license", "mit", "--repo"]
assert main([*words, "me/tiny", "--private"]) == 0
Editor.from_pretrained("me/tiny").save_pretrained(out)
assert (find_adapter("me/tiny") / "model.safetensors").is_file()
assert main([*words, "public/tiny", "--private"]) == 2
Editor.from_pretrained(run).push_to_hub("me/other")
import os
os.environ["HF_TOKEN"] = "hf_wrongone"
assert main([*words, "me/tiny"]) == 2
"""


def test_what_is_sent_can_be_loaded_from_the_hub(run: Path, tmp_path: Path) -> None:
    """By HTTP, through huggingface_hub; what is private stays so, and no token is printed."""
    with running(TOKEN) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(run), str(tmp_path / "again")],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
        assert f"{hub.url}/me/tiny/commit/" in told
        assert "public/tiny: is there already and public" in told
        assert re.search("me/tiny: the model hub took nothing: .*401", told)
        assert TOKEN not in told
        assert "hf_wrongone" not in told
        assert hub.private == {"me/tiny": True, "public/tiny": False, "me/other": False}
        assert set(hub.files) == {"me/tiny", "me/other"}
        names = {"config.json", "model.safetensors", "README.md"}
        assert set(hub.files["me/tiny"]) == set(hub.files["me/other"]) == names
        sent = hub.files["me/tiny"]["model.safetensors"]
        assert sent == (run / "checkpoint" / "model.safetensors").read_bytes()
        assert header_and_body(hub.files["me/tiny"]["README.md"].decode())[0]["license"] == "mit"
    ours, again = (Editor.from_pretrained(p).dit.state_dict() for p in (run, tmp_path / "again"))
    assert all(torch.equal(value, again[name]) for name, value in ours.items())
