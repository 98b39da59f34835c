"""Video segmentation with SAM 2: transformers' implementation, and Meta's package (`sam2`).

Both start at the frame of the boxes and go through the clip forwards and backwards.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.vlm import hub
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights, checkpoint_weights, file_weights
from shards.media import write_image

LICENSE = "Apache-2.0"
WHERE = "github.com/facebookresearch/sam2, download_ckpts.sh"


class Sam2Hub:
    """transformers' SAM 2.

    Args:
        checkpoint: folder or hub repository.
        dtype: of weights and activations; "auto" is bfloat16 on CUDA.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.25

    def __init__(
        self,
        checkpoint: str = "facebook/sam2.1-hiera-large",
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "SAM 2", LICENSE)

    def describe(self) -> Backend:
        """Checkpoint and precision."""
        revision = hub.revision_of(self.folder)
        return Backend("transformers", "sam2-video", revision, {"dtype": self.dtype})

    def weights(self) -> list[Weights]:
        """The model."""
        return checkpoint_weights(self.checkpoint, self.dtype)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import Sam2VideoModel, Sam2VideoProcessor

        hub.note_loaded("SAM 2")
        dtype = hub.dtype_of(self.dtype, self.device)
        model = Sam2VideoModel.from_pretrained(self.folder, dtype=dtype)
        device = hub.device_of(self.device)
        return Sam2VideoProcessor.from_pretrained(self.folder), model.eval().to(device)

    def propagate(self, frames: np.ndarray, seed: int, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool [N, T, H, W] and presence float32 [N, T] of the objects in `boxes` [N, 4] of a frame."""
        import torch

        processor, model = self._loaded
        masks, present = _nothing(frames, boxes)
        with torch.inference_mode():
            session = processor.init_video_session(
                video=list(frames),
                inference_device=model.device,
                video_storage_device="cpu",
                inference_state_device="cpu" if len(frames) > 300 else model.device,
                dtype=model.dtype,
            )
            processor.add_inputs_to_inference_session(
                session, frame_idx=seed, obj_ids=list(range(len(boxes))), input_boxes=[boxes.tolist()]
            )
            for reverse in (False, True):
                for output in model.propagate_in_video_iterator(
                    session, start_frame_idx=seed, reverse=reverse
                ):
                    size = [list(frames.shape[1:3])]
                    logits = processor.post_process_masks([output.pred_masks.float()], size, binarize=False)
                    masks[:, output.frame_idx] = (logits[0][:, 0] > 0).cpu().numpy()
                    scores = output.object_score_logits.float().sigmoid().reshape(-1)
                    present[:, output.frame_idx] = scores.cpu().numpy()
        return masks & (present > 0.5)[..., None, None], present


class Sam2Package:
    """Meta's implementation, from the package `sam2`, with their checkpoint files.

    Args:
        weights: their .pt file.
        config: name of a configuration inside the package.
        overrides: Hydra overrides of it, for models of other sizes.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.25

    def __init__(
        self,
        weights: str,
        config: str = "configs/sam2.1/sam2.1_hiera_l.yaml",
        overrides: tuple[str, ...] = (),
        device: str = "auto",
    ) -> None:
        self.weights_file, self.config, self.overrides = weights, config, tuple(overrides)
        self.device = device

    def describe(self) -> Backend:
        """Checkpoint and configuration."""
        hub.package("sam2")
        path = hub.file_of(self.weights_file, "SAM 2", LICENSE, WHERE)
        settings = {"config": self.config, "overrides": list(self.overrides)}
        return Backend("sam2", "sam2-video", hub.revision_of(path), settings)

    def weights(self) -> list[Weights]:
        """The model, by the size of its file."""
        return file_weights(self.weights_file)

    def build(self) -> Any:
        """The predictor without weights."""
        hub.package("sam2.build_sam")
        from sam2.build_sam import build_sam2_video_predictor

        device = hub.device_of(self.device)
        overrides = list(self.overrides)
        return build_sam2_video_predictor(self.config, device=device, hydra_overrides_extra=overrides)

    @functools.cached_property
    def _loaded(self) -> Any:
        hub.note_loaded("SAM 2")
        model = self.build()
        path = hub.file_of(self.weights_file, "SAM 2", LICENSE, WHERE)
        hub.load_exactly(model, path, "SAM 2")
        return model

    def propagate(self, frames: np.ndarray, seed: int, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool [N, T, H, W] and presence float32 [N, T] of the objects in `boxes` [N, 4] of a frame."""
        import torch

        model = self._loaded
        masks, present = _nothing(frames, boxes)
        device = hub.device_of(self.device)
        # Meta runs it so; in float32 its reverse pass meets bfloat16 memories and fails
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16), _pictures(frames) as folder:
            state = model.init_state(str(folder), offload_video_to_cpu=True, offload_state_to_cpu=True)
            for number, box in enumerate(boxes):
                model.add_new_points_or_box(state, frame_idx=seed, obj_id=number, box=box)
            for reverse in (False, True):
                for t, numbers, logits in model.propagate_in_video(
                    state, start_frame_idx=seed, reverse=reverse
                ):
                    masks[numbers, t] = (logits[:, 0] > 0).cpu().numpy()
                    for number in numbers:
                        present[number, t] = self._presence(state, number, t)
        return masks & (present > 0.5)[..., None, None], present

    @staticmethod  # `state` is the package's own bookkeeping
    def _presence(state: dict[str, Any], number: int, frame: int) -> float:
        held = state["output_dict_per_obj"][state["obj_id_to_idx"][number]]
        output = held["cond_frame_outputs"].get(frame) or held["non_cond_frame_outputs"][frame]
        return float(output["object_score_logits"].float().sigmoid().reshape(-1)[0])


def _nothing(frames: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    masks = np.zeros((len(boxes), *frames.shape[:3]), bool)
    return masks, np.zeros((len(boxes), len(frames)), np.float32)


@contextlib.contextmanager
def _pictures(frames: np.ndarray) -> Iterator[Path]:
    """A folder of numbered JPEG files, which is how the package reads a video without decord."""
    with tempfile.TemporaryDirectory(prefix="editverse-sam2-") as folder:
        for number, frame in enumerate(frames):
            write_image(Path(folder) / f"{number:05d}.jpg", frame)
        yield Path(folder)
