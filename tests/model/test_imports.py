"""`import model` and every module of it need torch, lightning, safetensors and numpy only.

Besides what `shards` needs (PyAV, pydantic, OpenCV, Pillow): a GPU node has no transformers, jsonargparse,
rich, Gradio or FastAPI. The modules that are the page or the HTTP interface are left out; they are imported
when it is served.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

BLOCKED = """
import importlib, pkgutil, sys

# Lightning's torchmetrics takes whatever it finds installed, so it is loaded before the others are hidden.
import lightning, lightning.pytorch.loggers

class Blocker:
    names = {"transformers", "tokenizers", "jsonargparse", "ray", "webdataset", "gradio",
             "curation", "benchmark", "scipy", "rich", "tensorboard", "fastapi", "starlette", "uvicorn"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [n for n in sys.modules if n.partition(".")[0] in Blocker.names]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocker())
import model
for module in pkgutil.walk_packages(model.__path__, "model."):
    page = ("page", "parts", "listeners", "security", "calls", "client", "uploads")
    service = ("api", "forms", "security", "server")
    needs_server = [f"model.app.{name}" for name in page] + [f"model.serving.{name}" for name in service]
    if module.name not in ("model.__main__", *needs_server):
        importlib.import_module(module.name)
assert model.Editor.__module__ == "model.inference.editor"
print("imported")
"""


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, model; sys.exit(' '.join({'torch', 'lightning', 'numpy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_imports_without_the_optional_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "imported" in done.stdout
