"""A tiny Stable Diffusion folder and tiny motion files with random weights: real parts, made in a second."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    SparseControlNetModel,
    T2IAdapter,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from stillmotion.animate import AnimateConfig
from stillmotion.motion import MotionModule

WIDTHS = (32, 32, 32, 32)
TEXT_WIDTH = 32
SIDE = 64


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of a model for 64x64 pixels."""
    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    vae_blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, sample_size=SIDE, **vae_blocks)
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    sizes = {"hidden_size": TEXT_WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    _tokenizer(folder / "tokenizer")
    encoder = CLIPTextModel(CLIPTextConfig(vocab_size=128, max_position_embeddings=20, **sizes))
    encoder.save_pretrained(folder / "text_encoder")
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


@pytest.fixture(scope="session")
def motion_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a motion module of a variant with random weights, and return the file."""

    def write(variant: str = "v3", widths: tuple[int, ...] = WIDTHS, **geometry: Any) -> Path:
        path = tmp_path_factory.mktemp("motion") / f"{variant}_mm.safetensors"
        module = MotionModule.from_variant(variant, block_out_channels=widths, layers_per_block=1, **geometry)
        generator = torch.Generator().manual_seed(1)
        state = {
            name: value if name.endswith(".pe") else 0.2 * torch.randn(value.shape, generator=generator)
            for name, value in module.state_dict().items()
        }
        save_file(state, path)
        return path

    return write


@pytest.fixture(scope="session")
def motion_lora_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a MotionLoRA under the reference's names for a module of a variant, and return the file."""

    def write(variant: str = "v3") -> Path:
        path = tmp_path_factory.mktemp("lora") / f"{variant}_zoom.safetensors"
        module = MotionModule.from_variant(variant, block_out_channels=WIDTHS, layers_per_block=1)
        tensors = {}
        for site in module.sites():
            for attention, layer in product(range(2), ("to_q", "to_out")):
                name = (
                    f"{site}.temporal_transformer.transformer_blocks.0.attention_blocks.{attention}.processor.{layer}"
                )
                tensors |= _low_rank(f"{name}_lora", WIDTHS[0])
        save_file(tensors, path)
        return path

    return write


@pytest.fixture(scope="session")
def domain_adapter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A domain adapter under the reference's names."""
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    tensors = {}
    for block, layer in product(range(3), ("to_q", "to_v")):
        name = f"down_blocks.{block}.attentions.0.transformer_blocks.0.attn1.processor.{layer}_lora"
        tensors |= _low_rank(name, WIDTHS[0])
    save_file(tensors, path)
    return path


@pytest.fixture(scope="session")
def style_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the image model in kohya's dialect."""
    path = tmp_path_factory.mktemp("style") / "style.safetensors"
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    down, up = _low_rank(name, WIDTHS[0]).values()
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    save_file(tensors, path)
    return path


@pytest.fixture(scope="session")
def control_file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a control model of a kind with random weights, once, and return its file or folder."""
    made: dict[str, Path] = {}

    def write(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / kind
            _CONTROLS[kind](made[kind], tiny_model)
        return made[kind] if kind != "ip_adapter" else made[kind] / "ip-adapter.safetensors"

    return write


def _randomised(model: torch.nn.Module) -> Any:
    generator = torch.Generator().manual_seed(2)
    for name, value in model.named_parameters():
        if not name.endswith(".pe"):
            value.data = 0.1 * torch.randn(value.shape, generator=generator)
    return model


def _write_controlnet(folder: Path, tiny_model: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(tiny_model / "unet")
    _randomised(ControlNetModel.from_unet(unet)).save_pretrained(folder)


def _write_t2i_adapter(folder: Path, _: Path) -> None:
    _randomised(T2IAdapter(channels=list(WIDTHS), num_res_blocks=1, downscale_factor=8)).save_pretrained(folder)


def _write_sparse(folder: Path, style: str) -> None:
    sizes = {"block_out_channels": WIDTHS, "layers_per_block": 1, "cross_attention_dim": TEXT_WIDTH}
    rgb = style == "rgb"
    _randomised(
        SparseControlNetModel(
            **sizes,
            attention_head_dim=4,
            norm_num_groups=8,
            motion_num_attention_heads=8,
            conditioning_channels=4 if rgb else 3,
            use_simplified_condition_embedding=rgb,
        )
    ).save_pretrained(folder)


def _write_ip_adapter(folder: Path, tiny_model: Path) -> None:
    """Write a plain IP-Adapter and, beside it, its image encoder."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=16, **sizes))
    encoder.save_pretrained(folder / "image_encoder")
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    tensors = {"image_proj.proj.weight": drawn(4 * TEXT_WIDTH, 16), "image_proj.proj.bias": drawn(4 * TEXT_WIDTH)}
    tensors |= {"image_proj.norm.weight": torch.ones(TEXT_WIDTH), "image_proj.norm.bias": torch.zeros(TEXT_WIDTH)}
    layers = UNet2DConditionModel.from_pretrained(tiny_model / "unet").attn_processors
    for index, name in enumerate(layers):
        if name.endswith("attn2.processor"):  # the original numbers all attentions, and stores every other one
            tensors |= {f"ip_adapter.{index}.to_{part}_ip.weight": drawn(WIDTHS[0], TEXT_WIDTH) for part in "kv"}
    save_file(tensors, folder / "ip-adapter.safetensors")


_CONTROLS: dict[str, Callable[[Path, Path], None]] = {
    "controlnet": _write_controlnet,
    "t2i_adapter": _write_t2i_adapter,
    "sparse_rgb": lambda folder, _: _write_sparse(folder, "rgb"),
    "sparse_scribble": lambda folder, _: _write_sparse(folder, "scribble"),
    "ip_adapter": _write_ip_adapter,
}


@pytest.fixture
def job(tiny_model: Path, motion_file: Callable[..., Path]) -> Callable[..., AnimateConfig]:
    """A small job on the tiny model: 4 frames, 2 steps; keywords change it."""
    motion = _once(motion_file)

    def make(**changes: Any) -> AnimateConfig:
        models = {"model": tiny_model, "motion": motion, "device": "cpu"}
        settings = {"prompt": "a red ball, rolling right", "num_frames": 4, "num_inference_steps": 2, "seed": 7}
        return AnimateConfig(**{**models, **settings, **changes})

    return make


def _low_rank(name: str, width: int, rank: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(name))
    down, up = (torch.randn(shape, generator=generator) for shape in ((rank, width), (width, rank)))
    return {f"{name}.down.weight": down, f"{name}.up.weight": up}


_motion: list[Path] = []


def _once(write: Callable[..., Path]) -> Path:
    if not _motion:
        _motion.append(write())
    return _motion[0]


def _tokenizer(folder: Path) -> None:
    """Write a CLIP tokenizer that knows letters only."""
    letters = "abcdefghijklmnopqrstuvwxyz,."
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
