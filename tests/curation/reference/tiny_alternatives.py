"""Tiny models with random weights of the alternatives, in the layouts that their checkpoints have."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import torch

from tests.curation.reference.tiny_models import byte_tokenizer


def sam3(folder: Path) -> Path:
    """Detector and tracker in one checkpoint, as published; its thresholds let noise through."""
    from transformers import (
        CLIPTokenizer,
        Sam2VideoVideoProcessor,
        Sam3ImageProcessor,
        Sam3VideoConfig,
        Sam3VideoModel,
        Sam3VideoProcessor,
    )

    side, patch, width = 112, 14, 128  # its memory reads object pointers of at least 128 numbers
    grid = side // patch
    letters = [*string.ascii_lowercase, *string.digits, *".,-'?!"]
    pieces = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=32)
    vision = {
        "backbone_config": {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
            "window_size": 4,
            "global_attn_indexes": [1],
            "pretrain_image_size": 56,
        },
        "fpn_hidden_size": width,
        "backbone_feature_sizes": [[scale * grid] * 2 for scale in (4, 2, 1)],
    }
    text = {
        "model_type": "clip_text_model",
        "vocab_size": len(pieces),
        "hidden_size": 32,
        "intermediate_size": 32,
        "projection_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": len(pieces) - 2,
        "eos_token_id": len(pieces) - 1,
    }
    layer = {"hidden_size": width, "num_attention_heads": 2}
    layers = {**layer, "num_layers": 1, "intermediate_size": 32}
    detector = {
        "model_type": "sam3",
        "vision_config": vision,
        "text_config": text,
        "geometry_encoder_config": layers,
        "detr_encoder_config": layers,
        "detr_decoder_config": {**layers, "num_queries": 3},
        "mask_decoder_config": layer,
    }
    tracker = {
        "model_type": "sam3_tracker_video",
        "vision_config": vision,
        "prompt_encoder_config": {
            "hidden_size": width,
            "image_size": side,
            "patch_size": patch,
            "mask_input_channels": 4,
        },
        "mask_decoder_config": {
            **layer,
            "mlp_dim": 32,
            "num_hidden_layers": 1,
            "iou_head_hidden_dim": 32,
        },
        "image_size": side,
        "memory_attention_hidden_size": width,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [grid, grid],
        "memory_encoder_hidden_size": width,
        "memory_encoder_output_channels": 64,
        "mask_downsampler_embed_dim": width,
        "memory_fuser_embed_dim": width,
        "memory_fuser_intermediate_dim": 32,
        "memory_fuser_num_layers": 1,
    }
    torch.manual_seed(8)
    model = Sam3VideoModel(
        Sam3VideoConfig(
            detector_config=detector,
            tracker_config=tracker,
            low_res_mask_size=4 * grid,
            score_threshold_detection=0.05,
            new_det_thresh=0.05,
            hotstart_delay=0,  # or noise that no detection confirms is taken back
        )
    )
    with torch.no_grad():  # objects are there, and their masks are not empty
        for name, value in model.named_parameters():
            if name.endswith("bias") and ("pred_obj_score_head" in name or "presence_head" in name):
                value += 3.0
    model.save_pretrained(folder)
    size = {"height": side, "width": side}
    pictures, videos = Sam3ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size)
    Sam3VideoProcessor(pictures, videos, tokenizer, target_size=side).save_pretrained(folder)
    return folder


def qwen_image_edit(folder: Path) -> Path:
    """Qwen-Image-Edit's architecture; it sees pictures at a megapixel, however tiny it is."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImageEditPipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    specials = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    tokenizer = byte_tokenizer((*specials, "<|video_pad|>", "<|endoftext|>"))
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    encoder = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
            "window_size": 112,
        },
        **{key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()},
    )
    torch.manual_seed(9)
    size = {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}
    pictures, videos = Qwen2VLImageProcessor(size=size), Qwen2VLVideoProcessor(size=size)
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(8, 4, 4),
    )
    QwenImageEditPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae,
        Qwen2_5_VLForConditionalGeneration(encoder),
        tokenizer,
        Qwen2VLProcessor(pictures, tokenizer, videos, chat_template="{{ messages }}"),
        transformer,
    ).save_pretrained(folder)
    return folder


ALTERNATIVES: dict[str, Callable[[Path], Path]] = {"sam3": sam3, "qwen_image_edit": qwen_image_edit}
