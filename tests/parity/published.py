"""The published programs' own classes, from a checkout, on networks that lie here.

Nothing of theirs is copied or changed on disk. What has to be put around them, because hub ids and sizes are
written into them or because their packages have moved on since, is all here:

- `from_pretrained(<hub id>)` loads the folder given for it;
- transformers 5 gives `get_text_features` and `get_image_features` as an object; its `pooler_output` is
  taken;
- `pkg_resources`, which setuptools no longer has, is `packaging`; `timm.models.registry` is `timm.models`;
- ViCLIP's towers are built by the published classes at the checkpoint's sizes, with its tokenizer's class on
  a vocabulary without merges.
"""

from __future__ import annotations

import gzip
import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


@contextmanager
def checkout(repo: Path) -> Iterator[None]:
    """Modules of a checkout can be imported; those that it brought are forgotten afterwards."""
    import packaging.version
    import timm.models

    shim = types.ModuleType("pkg_resources")
    shim.packaging = packaging  # type: ignore[attr-defined]
    before = set(sys.modules)
    sys.modules.setdefault("pkg_resources", shim)
    if importlib.util.find_spec("timm.models.registry") is None:
        sys.modules["timm.models.registry"] = timm.models
    sys.path.insert(0, str(repo))
    try:
        yield
    finally:
        sys.path.remove(str(repo))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(repo)) or sys.modules[name] is shim:
                del sys.modules[name]


def redirected(module: Any, folders: dict[str, Path]) -> None:
    """Let transformers' classes in a module load these folders for the hub ids that it names."""
    for name in [n for n in vars(module) if hasattr(getattr(module, n), "from_pretrained")]:
        setattr(module, name, _redirect(getattr(module, name), folders))


def _redirect(kind: Any, folders: dict[str, Path]) -> Any:
    from transformers import CLIPModel

    if kind is CLIPModel:

        class Model(CLIPModel):
            def get_text_features(self, *args: Any, **more: Any) -> Any:
                return _pooled(super().get_text_features(*args, **more))

            def get_image_features(self, *args: Any, **more: Any) -> Any:
                return _pooled(super().get_image_features(*args, **more))

        kind = Model

    class Redirected:
        @staticmethod
        def from_pretrained(name: str, *args: Any, **more: Any) -> Any:
            return kind.from_pretrained(folders[name], *args, **more)

    return Redirected


def _pooled(found: Any) -> Any:
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def viclip(module: Any, path: Path, vocabulary: Path) -> Any:
    """A published ViCLIP at a checkpoint's sizes, in eval mode.

    Args:
        module: the package `viclip` of a checkout.
        path: the checkpoint, with its numbers of heads under `config`.
        vocabulary: where the file of merges is to lie.
    """
    with gzip.open(vocabulary, "wb") as file:
        file.write(b"#version")  # a line that is skipped, and no merges
    tokenizer = module.SimpleTokenizer(bpe_path=str(vocabulary))
    held = torch.load(path, weights_only=True)
    state, heads = held["model"], held["config"]
    conv = state["vision_encoder.conv1.weight"]
    text = state["text_encoder.token_embedding.weight"]
    size = conv.shape[-1] * round((len(state["vision_encoder.positional_embedding"]) - 1) ** 0.5)

    class Published(module.ViCLIP):  # type: ignore[misc, name-defined]
        def build_vision_encoder(self) -> Any:
            return vision.VisionTransformer(
                input_resolution=size,
                patch_size=conv.shape[-1],
                width=len(conv),
                layers=2,
                heads=heads["vision_heads"],
                output_dim=state["vision_encoder.proj"].shape[1],
                drop_path=0.1,
            ).eval()

        def build_text_encoder(self) -> Any:
            return words.CLIP_TEXT(
                embed_dim=state["text_encoder.text_projection"].shape[1],
                context_length=self.max_txt_l,
                vocab_size=len(text),
                transformer_width=text.shape[1],
                transformer_heads=heads["text_heads"],
                transformer_layers=2,
                checkpoint_num=0,
                tokenizer=tokenizer,
            )

    vision = importlib.import_module(f"{module.__name__}.viclip_vision")
    words = importlib.import_module(f"{module.__name__}.viclip_text")
    return Published(tokenizer=tokenizer, pretrain=str(path)).eval(), size, tokenizer
