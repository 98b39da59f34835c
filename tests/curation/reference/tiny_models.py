"""Tiny models of the real architectures with random weights, in the layouts that real checkpoints have.

They stand in for checkpoints: what they find and draw is noise, so the tests open every gate and look at
shapes, invariants and files.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

SAM2 = (  # overrides of the package's configuration of the tiny model
    "++model.image_size=128",
    "++model.image_encoder.trunk.embed_dim=16",
    "++model.image_encoder.trunk.window_pos_embed_bkg_spatial_size=[7,7]",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
)
WORDS = ("person", "dog", "ball", "car", "red", "a", "the", "scene", "with")


def bert_tokenizer(folder: Path) -> None:
    """A WordPiece tokenizer that knows some words and all letters."""
    from transformers import BertTokenizerFast

    letters = [*string.ascii_lowercase, *string.digits, *".,-'?!"]
    pieces = [*["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], *letters, *(f"##{c}" for c in letters), *WORDS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    BertTokenizerFast(vocab=vocabulary, do_lower_case=True).save_pretrained(folder)


def byte_tokenizer(specials: tuple[str, ...]) -> object:
    """A byte-level tokenizer without merges: every byte is a token, so digits are split as Qwen2 does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    return tokenizer


def grounding_dino(folder: Path) -> Path:
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    bert_tokenizer(folder / "bert")
    tokenizer = BertTokenizerFast.from_pretrained(folder / "bert")
    text = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    swin = SwinConfig(
        image_size=64,
        window_size=7,
        embed_dim=12,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        out_indices=[2, 3, 4],
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=text,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=12,
        max_text_len=256,
    )
    torch.manual_seed(1)
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 107})
    GroundingDinoProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def sam2(folder: Path) -> Path:
    from transformers import (
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(
        hidden_size=12,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 1, 1],
        embed_dim_per_stage=[12, 24, 48, 96],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        image_size=[64, 64],
        global_attention_blocks=[],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[96, 48, 24, 12],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=128,
    )
    side = {"hidden_size": 128, "image_size": 64}
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={**side, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 128,
            "mlp_dim": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
        image_size=64,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=64,
        memory_fuser_num_layers=1,
    )
    torch.manual_seed(2)
    model = Sam2VideoModel(config)
    with torch.no_grad():  # objects are there, and their masks are not empty
        for name, value in model.named_parameters():
            if "pred_obj_score_head" in name and name.endswith("bias"):
                value += 3.0
    model.save_pretrained(folder)
    size = {"height": 64, "width": 64}
    processors = Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size)
    Sam2VideoProcessor(*processors, target_size=64).save_pretrained(folder)
    return folder


def depth_anything(folder: Path) -> Path:
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    backbone = Dinov2Config(
        image_size=56,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    torch.manual_seed(3)
    model = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():  # so that something comes through the rectifiers of so small a model
        for value in (*model.neck.parameters(), *model.head.parameters()):
            value *= 8
        model.head.conv3.bias += 1.0
    model.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14
    ).save_pretrained(folder)
    return folder


def qwen_vl(folder: Path, generation: str) -> Path:
    """Qwen2-VL, 2.5 or 3 ("2", "2.5", "3"), with the chat template's numbering of pictures and videos."""
    import transformers as hf

    specials = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    specials = (*specials, "<|video_pad|>", "<|endoftext|>")
    tokenizer = byte_tokenizer(specials)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    number = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        "eos_token_id": number("<|im_end|>"),
        "bos_token_id": number("<|endoftext|>"),
    }
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32}
    whole = {"vision_config": vision, "text_config": text}
    whole |= {"image_token_id": number("<|image_pad|>"), "video_token_id": number("<|video_pad|>")}
    whole["vision_start_token_id"] = number("<|vision_start|>")
    whole["vision_end_token_id"] = number("<|vision_end|>")
    patch = {"patch_size": 14}
    torch.manual_seed(4)
    if generation == "2":
        whole["vision_config"] = {
            "depth": 1,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
        }
        model, video = hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(**whole)), hf.Qwen2VLVideoProcessor
        joined: Callable[..., Any] = hf.Qwen2VLProcessor
    elif generation == "2.5":
        vision |= {"intermediate_size": 64, "fullatt_block_indexes": [0]}
        model = hf.Qwen2_5_VLForConditionalGeneration(hf.Qwen2_5_VLConfig(**whole))
        video, joined = hf.Qwen2VLVideoProcessor, hf.Qwen2_5_VLProcessor
    else:
        text |= {"head_dim": 8}
        vision |= {"intermediate_size": 64, "deepstack_visual_indexes": [0], "num_position_embeddings": 64}
        model = hf.Qwen3VLForConditionalGeneration(hf.Qwen3VLConfig(**whole))
        video, joined, patch = hf.Qwen3VLVideoProcessor, hf.Qwen3VLProcessor, {"patch_size": 16}
    model.save_pretrained(folder)
    template = (
        "{% set image = namespace(n=0) %}{% set video = namespace(n=0) %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}{% set image.n = image.n + 1 %}"
        "{% if add_vision_id %}Picture {{ image.n }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif c['type'] == 'video' %}{% set video.n = video.n + 1 %}"
        "{% if add_vision_id %}Video {{ video.n }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    pictures, videos = hf.Qwen2VLImageProcessor(**patch), video(**patch)
    joined(pictures, tokenizer, videos, chat_template=template).save_pretrained(folder)
    return folder


def t5(folder: Path) -> tuple[object, object]:
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = byte_tokenizer(("</s>", "<pad>"))
    tokenizer.eos_token, tokenizer.pad_token = "</s>", "<pad>"
    config = UMT5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0
    )
    return tokenizer, UMT5EncoderModel(config)


def wan_vace(folder: Path) -> Path:
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanVACEPipeline,
        WanVACETransformer3DModel,
    )

    torch.manual_seed(5)
    tokenizer, encoder = t5(folder)
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    transformer = WanVACETransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=16,
        freq_dim=32,
        ffn_dim=16,
        num_layers=2,
        vace_layers=[0],
        vace_in_channels=96,
    )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    WanVACEPipeline(tokenizer, encoder, vae, scheduler, transformer).save_pretrained(folder)
    return folder


def image_editor(folder: Path) -> Path:
    """FLUX.1 Kontext's architecture."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxKontextPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel

    torch.manual_seed(6)
    letters = [*string.ascii_lowercase, *string.digits, *".,-'?!"]
    pieces = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    clip_tokenizer = CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=77)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(pieces),
            hidden_size=16,
            intermediate_size=16,
            projection_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=len(pieces) - 2,
            eos_token_id=len(pieces) - 1,
        )
    )
    tokenizer = byte_tokenizer(("</s>", "<pad>"))
    tokenizer.eos_token, tokenizer.pad_token = "</s>", "<pad>"
    t5_config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    vae = AutoencoderKL(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )
    FluxKontextPipeline(
        FlowMatchEulerDiscreteScheduler(),
        vae,
        clip,
        clip_tokenizer,
        T5EncoderModel(t5_config),
        tokenizer,
        transformer,
    ).save_pretrained(folder)
    return folder


def rtmpose(folder: Path) -> Path:
    """An ONNX file as RTMPose's: from a picture to two distributions for each of 17 points."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    rng, (width, height) = np.random.default_rng(7), (48, 64)
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, height, width])
    outputs, nodes, weights = [], [], []
    shape = numpy_helper.from_array(np.array([-1, 3 * 4 * 4]), "flat")
    nodes.append(
        helper.make_node("AveragePool", ["input"], ["small"], kernel_shape=[16, 12], strides=[16, 12])
    )
    nodes.append(helper.make_node("Reshape", ["small", "flat"], ["features"]))
    for name, bins in (("simcc_x", 2 * width), ("simcc_y", 2 * height)):
        value = rng.normal(size=(3 * 4 * 4, 17 * bins)).astype(np.float32)
        weights += [numpy_helper.from_array(value, f"{name}_w")]
        weights += [numpy_helper.from_array(np.array([-1, 17, bins]), f"{name}_shape")]
        nodes.append(helper.make_node("MatMul", ["features", f"{name}_w"], [f"{name}_flat"]))
        nodes.append(helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 17, bins]))
    graph = helper.make_graph(nodes, "rtmpose", [picture], outputs, [shape, *weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "rtmpose.onnx"))
    return folder / "rtmpose.onnx"


MAKERS: dict[str, Callable[[Path], Path]] = {
    "grounding_dino": grounding_dino,
    "sam2": sam2,
    "depth_anything": depth_anything,
    "qwen2_vl": partial(qwen_vl, generation="2"),
    "qwen2_5_vl": partial(qwen_vl, generation="2.5"),
    "qwen3_vl": partial(qwen_vl, generation="3"),
    "wan_vace": wan_vace,
    "image_editor": image_editor,
    "rtmpose": rtmpose,
}
