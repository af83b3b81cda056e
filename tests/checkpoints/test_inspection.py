"""`inspect` says what a file is without reading its tensors, for the files that are loaded and those that lie beside them."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import stillmotion as sm

from .conftest import (
    WIDTHS,
    Tensors,
    hotshot_motion,
    image_unet,
    reference_adapter,
    reference_lora,
    reference_motion,
    write,
)


def test_motion_module(module_file: Path) -> None:
    info = sm.inspect(module_file)
    weights = [t for name, t in reference_motion().items() if not name.endswith(".pe")]
    assert (info.kind, info.variant, info.dialect, info.container) == ("motion_module", "v3", "original", "torch_zip")
    assert (info.widths, info.num_frames, info.dtype) == (WIDTHS, 32, "float32")
    assert info.num_parameters == sum(tensor.numel() for tensor in weights)
    assert info.size == module_file.stat().st_size
    assert info.sha256 == hashlib.sha256(module_file.read_bytes()).hexdigest()
    assert (info.note, str(info)) == ("", "a motion module (variant v3)")
    assert sm.inspect(module_file, hashed=False).sha256 is None


def test_parameters_of_the_released_sizes(tmp_path: Path) -> None:
    for variant, count in (("v3", 417_137_600), ("v2", 453_209_280)):
        with torch.device("meta"):
            motion = sm.MotionModule.from_variant(variant, block_out_channels=(320, 640, 1280, 1280))
        # A file of full size that takes no room on disk: a header, and a hole where the tensors would be.
        header = {}
        start = 0
        for name, tensor in motion.state_dict().items():
            header[name] = {
                "dtype": "F32",
                "shape": list(tensor.shape),
                "data_offsets": [start, start + 4 * tensor.numel()],
            }
            start += 4 * tensor.numel()
        text = json.dumps(header).encode()
        path = tmp_path / f"{variant}.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        os.truncate(path, 8 + len(text) + start)
        info = sm.inspect(path, hashed=False)
        assert (info.variant, info.num_parameters, info.widths) == (variant, count, (320, 640, 1280, 1280))


def test_whole_unet_is_left_out_of_the_count(tmp_path: Path, module_file: Path) -> None:
    whole = sm.inspect(write(tmp_path / "whole.ckpt", {"state_dict": reference_motion() | image_unet(), "epoch": 3}))
    assert whole.num_parameters == sm.inspect(module_file).num_parameters
    assert "A whole UNet" in whole.note
    assert whole.metadata == {"epoch": "3"}


@pytest.mark.parametrize(
    ("shape", "variant", "num_frames", "note"),
    [
        ({"length": None}, None, None, "by variant"),
        ({"length": None, "mid": True}, "animate_lcm", None, "AnimateLCM"),
        ({"length": 48}, "v3", 48, "48 positions"),
        ({"widths": (32, 32, 64)}, "sdxl_beta", 32, ""),
    ],
)
def test_notes_of_motion_modules(
    tmp_path: Path, shape: dict, variant: str | None, num_frames: int | None, note: str
) -> None:
    info = sm.inspect(write(tmp_path / "mm.ckpt", reference_motion(**shape)))
    assert (info.kind, info.variant, info.num_frames) == ("motion_module", variant, num_frames)
    assert note in info.note


def test_motion_loras(tmp_path: Path, lora_file: Path) -> None:
    info = sm.inspect(lora_file)
    assert (info.kind, info.variant, info.dialect, info.rank) == ("motion_lora", "v2", "original", 4)
    assert "mid block" in info.note
    without = sm.inspect(write(tmp_path / "lora.ckpt", reference_lora()))
    assert (without.kind, without.variant, without.note) == ("motion_lora", None, "")


def test_domain_adapter(adapter_file: Path) -> None:
    info = sm.inspect(adapter_file)
    assert (info.kind, info.dialect, info.rank) == ("domain_adapter", "original", 8)
    assert str(info) == "a domain adapter (rank 8)"


def image_lora(prefix: str, ends: tuple[str, ...], width: int = 768, rank: int = 4) -> Tensors:
    shapes = {"down": (rank, width), "up": (320, rank), "A": (rank, width), "B": (320, rank)}
    tensors = {f"{prefix}{end}": torch.zeros(shapes[end.split(".")[-2].split("_")[-1]]) for end in ends if "w" in end}
    return tensors | {f"{prefix}{end}": torch.tensor(2.0) for end in ends if end == ".alpha"}


KOHYA = (".lora_down.weight", ".lora_up.weight", ".alpha")
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
UNDERSCORED = ATTENTION.replace(".", "_")
SD = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}


OTHER_FILES: dict[str, tuple[Tensors, str, str | None]] = {
    "SD1.5": (SD | {"cond_stage_model.transformer.text_model.x": torch.zeros(2)}, "sd_checkpoint", "sd15"),
    "SD2": (SD | {"cond_stage_model.model.x": torch.zeros(2)}, "sd_checkpoint", "sd2"),
    "SDXL": (SD | {"conditioner.embedders.1.model.x": torch.zeros(2)}, "sd_checkpoint", "sdxl"),
    "UNet": (image_unet(), "unet", "sd15"),
    "UNet in an SD file alone": (SD, "unet", None),
    "VAE": ({"encoder.down_blocks.0.x": torch.zeros(2), "decoder.up_blocks.0.x": torch.zeros(2)}, "vae", None),
    "VAE, compvis": ({"encoder.down.0.x": torch.zeros(2), "decoder.up.0.x": torch.zeros(2)}, "vae", None),
    "text encoder": ({"text_model.embeddings.token_embedding.weight": torch.zeros(9, 8)}, "text_encoder", None),
    "image encoder": ({"vision_model.embeddings.class_embedding": torch.zeros(8)}, "image_encoder", None),
    "kohya": (image_lora(f"lora_unet_{UNDERSCORED}", KOHYA), "lora", "sd15"),
    "kohya SDXL": (image_lora(f"lora_unet_{UNDERSCORED}", KOHYA, width=2048), "lora", "sdxl"),
    "diffusers LoRA": (image_lora(f"unet.{ATTENTION}", (".lora_A.weight", ".lora_B.weight")), "lora", "sd15"),
    "LoHa": ({f"lora_unet_{UNDERSCORED}.hada_w1_a": torch.zeros(4, 4)}, "lora", None),
    "LoKr": ({f"lora_unet_{UNDERSCORED}.lokr_w1": torch.zeros(4, 4)}, "lora", None),
    "textual inversion": ({"emb_params": torch.zeros(4, 768)}, "textual_inversion", "sd15"),
    "textual inversion, diffusers": ({"<corgi>": torch.zeros(1, 768)}, "textual_inversion", "sd15"),
    "textual inversion, SDXL": (
        {"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(1, 1280)},
        "textual_inversion",
        "sdxl",
    ),
    "ControlNet": ({"control_model.zero_convs.0.0.weight": torch.zeros(2)}, "controlnet", None),
    "ControlNet, diffusers": ({"controlnet_cond_embedding.conv_in.weight": torch.zeros(2)}, "controlnet", None),
    "ControlNet of SDXL": (
        {
            "controlnet_cond_embedding.conv_in.weight": torch.zeros(2),
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(4, 2048),
        },
        "controlnet",
        "sdxl",
    ),
    "ControlNet, bare": (
        {
            "input_hint_block.0.weight": torch.zeros(2),
            "middle_block.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(4, 768),
        },
        "controlnet",
        "sd15",
    ),
    "T2I-Adapter": (
        {"conv_in.weight": torch.zeros(8, 192, 3, 3), "body.0.block1.weight": torch.zeros(2)},
        "t2i_adapter",
        "sd15",
    ),
    "T2I-Adapter, diffusers": (
        {
            "adapter.conv_in.weight": torch.zeros(8, 768, 3, 3),
            "adapter.body.0.resnets.0.block1.weight": torch.zeros(2),
        },
        "t2i_adapter",
        "sdxl",
    ),
    "T2I-Adapter, light": (
        {
            "body.0.in_conv.weight": torch.zeros(8, 64, 1, 1),
            "body.0.out_conv.weight": torch.zeros(2),
        },
        "t2i_adapter",
        "sd15",
    ),
    "IP-Adapter": (
        {"image_proj.proj.weight": torch.zeros(8, 8), "ip_adapter.1.to_k_ip.weight": torch.zeros(4, 768)},
        "ip_adapter",
        "sd15",
    ),
    "SparseCtrl, rgb": (
        reference_motion() | {"controlnet_cond_embedding.weight": torch.zeros(32, 5, 3, 3)},
        "sparse_control",
        "rgb",
    ),
    "SparseCtrl, of a trainer": (
        {f"module.{name}": value for name, value in reference_motion().items()}
        | {"module.controlnet_cond_embedding.weight": torch.zeros(32, 5, 3, 3)},
        "sparse_control",
        "rgb",
    ),
    "SparseCtrl, scribble": (
        reference_motion() | {"controlnet_cond_embedding.conv_in.weight": torch.zeros(16, 4, 3, 3)},
        "sparse_control",
        "scribble",
    ),
    "Hotshot-XL": (
        hotshot_motion(),
        "motion_module",
        "hotshot_xl",
    ),
    "PIA": (reference_motion() | {"conv_in.weight": torch.zeros(32, 9, 3, 3)}, "motion_module", "pia"),
    "AnimateLCM-I2V": (
        reference_motion() | {"img_encoder.weight": torch.zeros(2)},
        "motion_module",
        "animatelcm_i2v",
    ),
    "Flux": ({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2)}, "unknown", "flux"),
    "nothing known": ({"layer.weight": torch.zeros(3, 3), "layer.bias": torch.zeros(3)}, "unknown", None),
}


@pytest.mark.parametrize(("tensors", "kind", "variant"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_other_files_are_recognised(tmp_path: Path, tensors: Tensors, kind: str, variant: str | None) -> None:
    info = sm.inspect(write(tmp_path / "file.safetensors", tensors))
    assert (info.kind, info.variant) == (kind, variant)


@pytest.mark.parametrize("name", [name for name, (_, kind, _) in OTHER_FILES.items() if kind != "motion_module"])
def test_other_files_are_not_loaded(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "file.safetensors", OTHER_FILES[name][0])
    with pytest.raises(sm.FileError, match="not a motion module or a MotionLoRA or a domain adapter"):
        sm.load(path)


def test_rank_and_alpha_of_an_image_lora(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    tensors = image_lora(f"lora_unet_{UNDERSCORED}", KOHYA, rank=16)
    save_file(tensors | {"lora_te_text_model_x.alpha": torch.tensor(2.0)}, path, {"ss_network_dim": "16"})
    info = sm.inspect(path)
    assert (info.kind, info.dialect, info.rank, info.alpha) == ("lora", "kohya", 16, 2.0)
    assert info.metadata == {"ss_network_dim": "16"}


def test_ip_adapter_in_nested_mappings(tmp_path: Path) -> None:
    content = {"image_proj": {"proj.weight": torch.zeros(2)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(2)}}
    assert sm.inspect(write(tmp_path / "ip-adapter.bin", content)).kind == "ip_adapter"


def test_textual_inversion_of_the_webui(tmp_path: Path) -> None:
    content = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": torch.zeros(2, 768)}, "name": "x"}
    info = sm.inspect(write(tmp_path / "corgi.pt", content))
    assert (info.kind, info.metadata) == ("textual_inversion", {"name": "x"})


def test_folder_of_a_pipeline(tmp_path: Path) -> None:
    from stillmotion.toyworld import weights_folder

    info = sm.inspect(weights_folder())
    assert (info.kind, info.dialect, info.sha256) == ("pipeline", "diffusers", None)
    assert "StableDiffusionPipeline" in info.note
    assert info.size > 1_000_000


def test_commonest_dtype(tmp_path: Path) -> None:
    tensors = {name: t if name.endswith(".bias") else t.half() for name, t in reference_motion().items()}
    assert sm.inspect(write(tmp_path / "mm.safetensors", tensors)).dtype == "float16"


def test_domain_adapter_needs_no_ending(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    torch.save(reference_adapter(), path)
    assert sm.inspect(path).kind == "domain_adapter"
