"""Detection by name with Grounding DINO: transformers' implementation, and the authors' (`groundingdino-py`).

A box belongs to the name whose tokens agree with it most; its score is the largest agreement of one token, as
in both implementations. Names are lower-cased and each ends with a full stop, as the model was trained.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import cv2
import numpy as np

from curation.core.interfaces import Detections
from curation.ops import masks
from curation.vlm import hub
from curation.vlm.interface import AnnotatorError, Backend
from curation.vlm.weights import Weights, checkpoint_weights, file_weights
from shards.errors import SettingError

LICENSE = "Apache-2.0"
WHERE = "github.com/IDEA-Research/GroundingDINO, releases"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of the authors' transforms


def caption_of(names: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The model's text for names, and where each is in it. ValueError for no or an empty name."""
    clean = [" ".join(name.lower().replace(".", " ").split()) for name in names]
    if not clean or not all(clean):
        raise SettingError("names: give at least one, none of them empty")
    text, spans = "", []
    for name in clean:
        spans.append((len(text), len(text) + len(name)))
        text += name + ". "
    return text.strip(), spans


def choose(
    logits: np.ndarray,
    boxes: np.ndarray,
    offsets: np.ndarray,
    spans: list[tuple[int, int]],
    names: Sequence[str],
    threshold: float,
    overlap: float,
) -> Detections:
    """Detections from the model's raw output, best first.

    Args:
        logits: float [queries, tokens]; boxes: float [queries, 4], corners in pixels.
        offsets: int [tokens, 2], the characters of each token.
        spans: the characters of each name.
        threshold: least score; overlap: IoU above which the weaker of two boxes of one name is dropped.
    """
    agreement = 1 / (1 + np.exp(-logits.astype(np.float64)))
    of_name = np.zeros((len(logits), len(names)))
    for number, (start, stop) in enumerate(spans):
        tokens = [i for i, (a, b) in enumerate(offsets) if b > a and a >= start and b <= stop]
        tokens = [i for i in tokens if i < agreement.shape[1]]
        if not tokens:
            raise AnnotatorError(
                f"Grounding DINO: {names[number]!r} does not fit into its text; ask for fewer"
            )
        of_name[:, number] = agreement[:, tokens].max(1)
    label, score = of_name.argmax(1), of_name.max(1)
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        if score[i] < threshold:
            break
        rivals = [k for k in kept if label[k] == label[i]]
        if not rivals or masks.iou(boxes[i : i + 1], boxes[rivals]).max() <= overlap:
            kept.append(int(i))
    found = boxes[kept].astype(np.float32).reshape(-1, 4)
    return Detections(found, score[kept].astype(np.float32), tuple(names[label[i]] for i in kept))


class GroundingDino:
    """transformers' Grounding DINO.

    Args:
        checkpoint: folder or hub repository.
        threshold: least score of a box (Grounded-SAM-2 uses 0.25).
        overlap: of boxes of one name, for suppression.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.25

    def __init__(
        self,
        checkpoint: str = "IDEA-Research/grounding-dino-base",
        threshold: float = 0.25,
        overlap: float = 0.7,
        device: str = "auto",
    ) -> None:
        self.checkpoint, self.threshold, self.overlap, self.device = checkpoint, threshold, overlap, device

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "Grounding DINO", LICENSE)

    def describe(self) -> Backend:
        """Model and thresholds."""
        settings = {"threshold": self.threshold, "overlap": self.overlap}
        return Backend("transformers", "grounding-dino", hub.revision_of(self.folder), settings)

    def weights(self) -> list[Weights]:
        """The model, in float32."""
        return checkpoint_weights(self.checkpoint)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        hub.note_loaded("Grounding DINO")
        model = GroundingDinoForObjectDetection.from_pretrained(self.folder)
        device = hub.device_of(self.device)
        return AutoProcessor.from_pretrained(self.folder), model.eval().to(device)

    def find(self, frame: np.ndarray, names: Sequence[str]) -> Detections:
        """All objects in a frame [H, W, 3] that one of `names` fits."""
        import torch

        processor, model = self._loaded
        text, spans = caption_of(names)
        inputs = processor(images=frame, text=text, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model(**inputs)
        offsets = processor.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        boxes = _corners(output.pred_boxes[0].float().cpu().numpy(), frame.shape)
        logits = output.logits[0].float().cpu().numpy()
        return choose(logits, boxes, np.array(offsets), spans, names, self.threshold, self.overlap)


class GroundingDinoPackage:
    """The authors' implementation, from `groundingdino-py`, with their checkpoint files.

    Args:
        weights: their .pth file; its keys must fit the model exactly.
        config: SwinT or SwinB, of the package, or a configuration file of the same kind.
        text_encoder: folder or hub repository of bert-base-uncased.
        side: pixels of the picture's short side in the model, 1333 / 800 times that for the long one.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.25

    def __init__(
        self,
        weights: str,
        config: str = "SwinT",
        text_encoder: str = "bert-base-uncased",
        threshold: float = 0.25,
        overlap: float = 0.7,
        side: int = 800,
        device: str = "auto",
    ) -> None:
        self.weights_file, self.config, self.text_encoder = weights, config, text_encoder
        self.threshold, self.overlap, self.side, self.device = threshold, overlap, side, device

    def describe(self) -> Backend:
        """Checkpoint and thresholds."""
        hub.package("groundingdino")
        path = hub.file_of(self.weights_file, "Grounding DINO", LICENSE, WHERE)
        settings = {"config": self.config, "side": self.side}
        settings |= {"threshold": self.threshold, "overlap": self.overlap}
        return Backend("groundingdino-py", "grounding-dino", hub.revision_of(path), settings)

    def weights(self) -> list[Weights]:
        """The model, by the size of its file."""
        return file_weights(self.weights_file)

    @functools.cached_property
    def _loaded(self) -> Any:
        hub.note_loaded("Grounding DINO")
        model = self.build()
        path = hub.file_of(self.weights_file, "Grounding DINO", LICENSE, WHERE)
        # a buffer that older versions of transformers stored, and a table that only the training used
        spare = ("bert.embeddings.position_ids", "label_enc.weight")
        hub.load_exactly(model, path, "Grounding DINO", spare)
        return model.eval().to(hub.device_of(self.device))

    def build(self) -> Any:
        """The model without weights."""
        package = hub.package("groundingdino")
        hub.package("groundingdino.models")
        from groundingdino.models import build_model
        from groundingdino.models.GroundingDINO import groundingdino
        from groundingdino.util.slconfig import SLConfig

        named = {"SwinT": "GroundingDINO_SwinT_OGC.py", "SwinB": "GroundingDINO_SwinB_cfg.py"}
        home = Path(package.__path__[0]) / "config"
        config = SLConfig.fromfile(str(home / named[self.config] if self.config in named else self.config))
        config.device = hub.device_of(self.device)
        where = hub.folder_of(self.text_encoder, "BERT, Grounding DINO's text encoder", LICENSE)
        config.text_encoder_type = str(where)
        with mock.patch.object(groundingdino, "BertModelWarper", _wide_masks):
            return build_model(config)

    def find(self, frame: np.ndarray, names: Sequence[str]) -> Detections:
        """All objects in a frame [H, W, 3] that one of `names` fits."""
        import torch

        model, (text, spans) = self._loaded, caption_of(names)
        device = hub.device_of(self.device)
        scale = min(self.side / min(frame.shape[:2]), self.side * 1333 / 800 / max(frame.shape[:2]))
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        values = (small.astype(np.float32) / 255 - MEAN) / STD
        picture = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1).to(device)
        with torch.inference_mode():
            output = model(picture[None], captions=[text])
        offsets = model.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        boxes = _corners(output["pred_boxes"][0].float().cpu().numpy(), frame.shape)
        logits = output["pred_logits"][0].float().cpu().numpy()
        return choose(logits, boxes, np.array(offsets), spans, names, self.threshold, self.overlap)


def _corners(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """From (centre, size) in parts of the picture to corners in pixels, cut at the picture's edges."""
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    return np.clip(np.concatenate([low, high], 1), 0, 1) * np.tile([shape[1], shape[0]], 2)


def _wide_masks(bert_model: Any) -> Any:
    """The text encoder as it is, but for masks [B, L, L], which the model gives it and BertModel refuses.

    Stands in for the package's wrapper, which calls methods that transformers 5 no longer has.
    """
    import torch

    # `values` are keywords of the model's own call, as torch hands them to a hook
    def widen(_: Any, args: tuple[Any, ...], values: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = values.get("attention_mask")
        if mask is not None and mask.dim() == 3:
            low = torch.finfo(bert_model.dtype).min
            values["attention_mask"] = (1.0 - mask[:, None].to(bert_model.dtype)) * low
        return args, values

    bert_model.register_forward_pre_hook(widen, with_kwargs=True)
    return bert_model
