"""Tiny random pipelines of diffusers' own classes as folders, a program that edits, and a server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from tests.benchmark import networks
from tests.curation.reference import tiny_models

# Inverts a clip: `edit.py video out [pause] [log]`; a line of the log is an edit begun.
PROGRAM = """
import sys, time
from pathlib import Path
from shards.media import read_video, write_video
video, out, words, log = sys.argv[1:5]
with open(log, "a") as file:
    file.write("begin\\n")
time.sleep(float(sys.argv[5]) if len(sys.argv) > 5 else 0)
frames, fps = read_video(video)
write_video(out, 255 - frames, fps)
"""


def image_editor(folder: Path) -> Path:
    """InstructPix2Pix."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionInstructPix2PixPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(networks.tokenizer(folder / "words"))
    tokenizer.model_max_length = 77
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=514,
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=512,
            eos_token_id=513,
        )
    )
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=8,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    blocks = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    vae = AutoencoderKL(
        block_out_channels=[4, 4, 4, 4],
        down_block_types=blocks[0],
        up_block_types=blocks[1],
        latent_channels=4,
        norm_num_groups=2,
    )
    StableDiffusionInstructPix2PixPipeline(
        vae, text, tokenizer, unet, DDIMScheduler(), None, None, None, False
    ).save_pretrained(folder)
    return folder


def vace(folder: Path) -> Path:
    """Wan VACE."""
    folder.mkdir(parents=True)
    return tiny_models.wan_vace(folder)


def video_to_video(folder: Path) -> Path:
    """Wan's video to video."""
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanTransformer3DModel,
        WanVideoToVideoPipeline,
    )

    folder.mkdir(parents=True)
    torch.manual_seed(7)
    tokenizer, encoder = tiny_models.t5(folder)
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=16,
        freq_dim=32,
        ffn_dim=16,
        num_layers=1,
        rope_max_seq_len=64,
    )
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    WanVideoToVideoPipeline(tokenizer, encoder, transformer, vae, scheduler).save_pretrained(folder)
    return folder


Answer = tuple[int, bytes]


class Server:
    """Answers the request of number n, whose body is given, as `reply` says."""

    def __init__(self, reply: Callable[[int, bytes], Answer]) -> None:
        self.bodies: list[bytes] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                served.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                status, data = reply(len(served.bodies) - 1, served.bodies[-1])
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # who asked did not wait

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/edit"

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()


def video_of(body: bytes) -> bytes:
    """The mp4 in a multipart body."""
    boundary = body.split(b"\r\n", 1)[0]
    part = next(p for p in body.split(boundary) if b'name="video"' in p)
    return part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
