"""Layouts of published checkpoints, to count parameters of before anything is fetched.

A layout is the class that loads a part of a checkpoint and the numbers of its published config.json that
decide how many parameters it has. Only numbers that differ from the class's own defaults are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# repository -> part -> (class, config); a checkpoint that is one model has the one part "model"
Layout = tuple[str, Mapping[str, Any]]  # config.json is JSON

# Wan2.1: wan/configs/wan_t2v_14B.py, wan_t2v_1_3B.py and shared_config.py (github.com/Wan-Video/Wan2.1);
# VACE's layers: vace/models/wan/configs (github.com/ali-vilab/VACE)
_UMT5_XXL: Layout = (
    "transformers.UMT5EncoderModel",
    {
        "vocab_size": 256384,
        "d_model": 4096,
        "d_ff": 10240,
        "d_kv": 64,
        "num_heads": 64,
        "num_layers": 24,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
)
_WAN_VAE: Layout = ("diffusers.AutoencoderKLWan", {})
_WAN_14B = {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
_WAN_1_3B = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}

# Qwen-VL, by the config.json of each (github.com/QwenLM/Qwen3-VL): language model, vision tower, tied or not
_QWEN2_VISION = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4}
_QWEN2_5_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}


def _language(hidden: int, inner: int, layers: int, heads: int, pairs: int, words: int) -> dict[str, int]:
    """A language model: widths, layers, heads, pairs of keys and values, and words."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
        "vocab_size": words,
    }


def _qwen_vl(name: str, language: Mapping[str, int], vision: Mapping[str, Any], tied: bool) -> Layout:
    """A Qwen-VL; `tied`: the words in and out share their weights."""
    config = {
        "text_config": {**language, "tie_word_embeddings": tied},
        "vision_config": vision,
        "tie_word_embeddings": tied,
    }
    return f"transformers.{name}ForConditionalGeneration", config


_QWEN_7B = _language(3584, 18944, 28, 28, 4, 152064)
_QWEN2_5_VL_7B = _qwen_vl("Qwen2_5_VL", _QWEN_7B, {**_QWEN2_5_VISION, "out_hidden_size": 3584}, False)


def _qwen3_vl(
    language: Mapping[str, int], depth: int, hidden: int, inner: int, taps: list[int], tied: bool
) -> Layout:
    """A Qwen3-VL; `taps`: layers of the vision tower that the language model sees."""
    vision = {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_heads": 16,
        "out_hidden_size": language["hidden_size"],
        "deepstack_visual_indexes": taps,
        "num_position_embeddings": 2304,
    }
    return _qwen_vl("Qwen3VL", {**language, "head_dim": 128}, vision, tied)


_QWEN_IMAGE_VAE: Layout = ("diffusers.AutoencoderKLQwenImage", {})
_T5_XXL: Layout = (
    "transformers.T5EncoderModel",
    {
        "vocab_size": 32128,
        "d_model": 4096,
        "d_ff": 10240,
        "d_kv": 64,
        "num_heads": 64,
        "num_layers": 24,
        "feed_forward_proj": "gated-gelu",
    },
)
_SWIN = {"model_type": "swin", "out_features": ["stage2", "stage3", "stage4"]}


def _depth_anything(hidden: int, layers: int, heads: int, neck: list[int], fusion: int) -> dict[str, Layout]:
    """Depth Anything V2 of one size: depth_anything_v2/dpt.py of its repository."""
    third = layers // 4
    backbone = {
        "model_type": "dinov2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 518,
        "patch_size": 14,
        "out_features": [f"stage{third * n}" for n in (1, 2, 3, 4)],
        "reshape_hidden_states": False,
    }
    config = {
        "backbone_config": backbone,
        "reassemble_hidden_size": hidden,
        "neck_hidden_sizes": neck,
        "fusion_hidden_size": fusion,
    }
    return {"model": ("transformers.DepthAnythingForDepthEstimation", config)}


PUBLISHED: dict[str, dict[str, Layout]] = {
    "Wan-AI/Wan2.1-VACE-14B-diffusers": {
        "transformer": (
            "diffusers.WanVACETransformer3DModel",
            {**_WAN_14B, "vace_layers": [0, 5, 10, 15, 20, 25, 30, 35]},
        ),
        "text_encoder": _UMT5_XXL,
        "vae": _WAN_VAE,
    },
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": {
        "transformer": (
            "diffusers.WanVACETransformer3DModel",
            {**_WAN_1_3B, "vace_layers": list(range(0, 30, 2))},
        ),
        "text_encoder": _UMT5_XXL,
        "vae": _WAN_VAE,
    },
    # the base of ReCamMaster
    "Wan-AI/Wan2.1-T2V-1.3B": {
        "transformer": ("diffusers.WanTransformer3DModel", _WAN_1_3B),
        "text_encoder": _UMT5_XXL,
        "vae": _WAN_VAE,
    },
    # github.com/QwenLM/Qwen-Image; diffusers' defaults are its numbers
    "Qwen/Qwen-Image-Edit": {
        "transformer": ("diffusers.QwenImageTransformer2DModel", {}),
        "text_encoder": _QWEN2_5_VL_7B,
        "vae": _QWEN_IMAGE_VAE,
    },
    "Qwen/Qwen-Image-Edit-2509": {
        "transformer": ("diffusers.QwenImageTransformer2DModel", {}),
        "text_encoder": _QWEN2_5_VL_7B,
        "vae": _QWEN_IMAGE_VAE,
    },
    # github.com/black-forest-labs/flux, src/flux/util.py
    "black-forest-labs/FLUX.1-Kontext-dev": {
        "transformer": ("diffusers.FluxTransformer2DModel", {"guidance_embeds": True}),
        "text_encoder": (
            "transformers.CLIPTextModel",
            {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
            },
        ),
        "text_encoder_2": _T5_XXL,
        "vae": (
            "diffusers.AutoencoderKL",
            {
                "block_out_channels": [128, 256, 512, 512],
                "down_block_types": ["DownEncoderBlock2D"] * 4,
                "up_block_types": ["UpDecoderBlock2D"] * 4,
                "layers_per_block": 2,
                "latent_channels": 16,
                "use_quant_conv": False,
                "use_post_quant_conv": False,
            },
        ),
    },
    "Qwen/Qwen2-VL-7B-Instruct": {
        "model": _qwen_vl("Qwen2VL", _QWEN_7B, {**_QWEN2_VISION, "hidden_size": 3584}, False)
    },
    "Qwen/Qwen2-VL-2B-Instruct": {
        "model": _qwen_vl(
            "Qwen2VL",
            _language(1536, 8960, 28, 12, 2, 151936),
            {**_QWEN2_VISION, "hidden_size": 1536},
            True,
        )
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {"model": _QWEN2_5_VL_7B},
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "model": _qwen_vl(
            "Qwen2_5_VL",
            _language(2048, 11008, 36, 16, 2, 151936),
            {**_QWEN2_5_VISION, "out_hidden_size": 2048},
            True,
        )
    },
    "Qwen/Qwen3-VL-8B-Instruct": {
        "model": _qwen3_vl(_language(4096, 12288, 36, 32, 8, 151936), 27, 1152, 4304, [8, 16, 24], tied=False)
    },
    "Qwen/Qwen3-VL-4B-Instruct": {
        "model": _qwen3_vl(_language(2560, 9728, 36, 32, 8, 151936), 24, 1024, 4096, [5, 11, 17], tied=True)
    },
    # github.com/IDEA-Research/GroundingDINO, groundingdino/config
    "IDEA-Research/grounding-dino-base": {
        "model": (
            "transformers.GroundingDinoForObjectDetection",
            {
                "backbone_config": {
                    **_SWIN,
                    "image_size": 384,
                    "window_size": 12,
                    "embed_dim": 128,
                    "depths": [2, 2, 18, 2],
                    "num_heads": [4, 8, 16, 32],
                }
            },
        )
    },
    "IDEA-Research/grounding-dino-tiny": {
        "model": (
            "transformers.GroundingDinoForObjectDetection",
            {"backbone_config": {**_SWIN, "image_size": 224, "window_size": 7}},
        )
    },
    # transformers' defaults are those of the published model
    "facebook/sam3": {"model": ("transformers.Sam3VideoModel", {})},
    # github.com/facebookresearch/sam2, sam2/configs/sam2.1/sam2.1_hiera_l.yaml
    "facebook/sam2.1-hiera-large": {
        "model": (
            "transformers.Sam2VideoModel",
            {
                "vision_config": {
                    "model_type": "sam2_vision_model",
                    "backbone_config": {
                        "model_type": "sam2_hiera_det_model",
                        "hidden_size": 144,
                        "num_attention_heads": 2,
                        "blocks_per_stage": [2, 6, 36, 4],
                        "embed_dim_per_stage": [144, 288, 576, 1152],
                        "num_attention_heads_per_stage": [2, 4, 8, 16],
                        "global_attention_blocks": [23, 33, 43],
                        "window_positional_embedding_background_size": [7, 7],
                        "window_size_per_stage": [8, 4, 16, 8],
                    },
                    "backbone_channel_list": [1152, 576, 288, 144],
                }
            },
        )
    },
    "depth-anything/Depth-Anything-V2-Small-hf": _depth_anything(384, 12, 6, [48, 96, 192, 384], 64),
    "depth-anything/Depth-Anything-V2-Base-hf": _depth_anything(768, 12, 12, [96, 192, 384, 768], 128),
    "depth-anything/Depth-Anything-V2-Large-hf": _depth_anything(1024, 24, 16, [256, 512, 1024, 1024], 256),
}
