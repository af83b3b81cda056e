"""What we write is read by diffusers itself, and what diffusers writes by us."""

from pathlib import Path

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

import stillmotion as sm

from .conftest import pairs, reference_lora, reference_motion, same, write

WIDTHS = (32, 64)


@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_diffusers_reads_our_folders(tmp_path: Path, variant: str) -> None:
    torch.manual_seed(0)
    motion = sm.MotionModule.from_variant(variant, block_out_channels=WIDTHS, num_attention_heads=4, layers_per_block=1)
    torch.nn.init.normal_(motion.down_blocks[0].motion_modules[0].proj_out.weight)
    sm.save(motion, tmp_path / "adapter", dialect="diffusers")
    adapter, report = MotionAdapter.from_pretrained(tmp_path / "adapter", output_loading_info=True)
    assert not any(report.values())
    assert same(adapter.state_dict(), motion.state_dict())
    assert adapter.config.motion_num_attention_heads == 4
    assert adapter.config.motion_max_seq_length == motion.max_frames
    assert adapter.config.use_motion_mid_block == motion.geometry.has_mid_block


@pytest.mark.parametrize("half", [False, True])
def test_we_read_folders_of_diffusers(tmp_path: Path, half: bool) -> None:
    torch.manual_seed(0)
    adapter = MotionAdapter(WIDTHS, motion_layers_per_block=1, motion_num_attention_heads=4, use_motion_mid_block=False)
    if half:
        adapter = adapter.half()
    adapter.save_pretrained(tmp_path, variant="fp16" if half else None)
    motion = sm.load(tmp_path, expect=sm.MotionModule)
    assert (motion.variant.name, motion.geometry.num_attention_heads) == ("v3", 4)
    assert same(motion.state_dict(), adapter.state_dict())


def test_we_read_a_whole_motion_unet_of_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNetMotionModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        cross_attention_dim=16,
        num_attention_heads=2,
        motion_num_attention_heads=4,
    )
    unet.save_pretrained(tmp_path)
    motion = sm.load(tmp_path, expect=sm.MotionModule)
    assert (motion.variant.name, motion.geometry.num_attention_heads) == ("v2", 4)
    theirs = {name: tensor for name, tensor in unet.state_dict().items() if "motion_modules" in name}
    assert same(motion.state_dict(), theirs)


def test_diffusers_converts_our_originals(tmp_path: Path) -> None:
    made = sm.convert(write(tmp_path / "a.safetensors", reference_motion(mid=True)), "original", tmp_path / "mm.ckpt")
    converted = convert_animatediff_checkpoint_to_diffusers(torch.load(made, weights_only=True))
    adapter = MotionAdapter(WIDTHS, motion_layers_per_block=1, use_motion_mid_block=True)
    report = adapter.load_state_dict(converted, strict=False)
    assert not report.unexpected_keys
    assert all(name.endswith("pos_embed.pe") for name in report.missing_keys)
    assert same(adapter.state_dict(), sm.load(made, expect=sm.MotionModule).state_dict())


def test_diffusers_reads_our_originals_as_single_files(tmp_path: Path) -> None:
    folder = sm.convert(write(tmp_path / "a.ckpt", reference_motion()), "diffusers", tmp_path / "adapter")
    made = sm.convert(folder, "original", tmp_path / "mm.safetensors")
    adapter = MotionAdapter.from_single_file(made, config=str(folder), local_files_only=True)
    assert same(adapter.state_dict(), sm.load(made, expect=sm.MotionModule).state_dict())


@pytest.fixture
def pipeline(tmp_path: Path) -> AnimateDiffPipeline:
    """A tiny motion pipeline of diffusers, with random weights."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        sample_size=8,
    )
    text = CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, vocab_size=99
    )
    return AnimateDiffPipeline(
        vae=AutoencoderKL(block_out_channels=(32,), down_block_types=("DownEncoderBlock2D",), norm_num_groups=8),
        text_encoder=CLIPTextModel(text),
        tokenizer=None,
        unet=unet,
        motion_adapter=MotionAdapter(WIDTHS, motion_layers_per_block=1),
        scheduler=DDIMScheduler(),
    )


def peft_factors(pipeline: AnimateDiffPipeline) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the LoRA that diffusers attached to the UNet, by layer."""
    return {
        path: (layer.lora_A["mine"].weight, layer.lora_B["mine"].weight)
        for path, layer in pipeline.unet.named_modules()
        if hasattr(layer, "lora_A")
    }


@pytest.mark.parametrize("folder", [False, True])
def test_diffusers_reads_our_motion_loras(tmp_path: Path, pipeline: AnimateDiffPipeline, folder: bool) -> None:
    source = write(tmp_path / "zoom.ckpt", reference_lora(mid=True))
    made = sm.convert(source, "diffusers", tmp_path / ("zoom" if folder else "zoom.safetensors"))
    pipeline.load_lora_weights(str(made), adapter_name="mine")
    lora = sm.load(source, expect=sm.MotionLora)
    found = peft_factors(pipeline)
    assert found.keys() == lora.weights.keys()
    for path, (down, up) in lora.weights.items():
        assert torch.equal(found[path][0], down)
        assert torch.equal(found[path][1], up)
    scales = {layer.scaling["mine"] for layer in pipeline.unet.modules() if hasattr(layer, "lora_A")}
    assert scales == {1.0}


def test_diffusers_reads_feed_forward_loras(tmp_path: Path, pipeline: AnimateDiffPipeline) -> None:
    block = "mid_block.motion_modules.0.transformer_blocks.0"
    weights = pairs({f"{block}.attn1.to_out.0": 64}, 4) | {
        f"{block}.ff.net.0.proj": (torch.randn(4, 64), torch.randn(512, 4)),
        f"{block}.ff.net.2": (torch.randn(4, 256), torch.randn(64, 4)),
    }
    made = sm.save(sm.MotionLora(weights=weights), tmp_path / "zoom.safetensors", dialect="diffusers")
    pipeline.load_lora_weights(str(made), adapter_name="mine")
    assert peft_factors(pipeline).keys() == weights.keys()


def test_diffusers_reads_our_domain_adapters(tmp_path: Path, pipeline: AnimateDiffPipeline) -> None:
    place = "down_blocks.0.attentions.0.transformer_blocks.0"
    weights = pairs({f"{place}.attn1.{layer}": 32 for layer in ("to_q", "to_k", "to_v", "to_out.0")}, 4)
    made = sm.save(sm.DomainAdapter(weights=weights), tmp_path / "adapter", dialect="diffusers")
    pipeline.load_lora_weights(str(made), adapter_name="mine")
    assert peft_factors(pipeline).keys() == weights.keys()


def test_we_read_what_diffusers_saves(tmp_path: Path, pipeline: AnimateDiffPipeline) -> None:
    original = sm.save(
        sm.load(write(tmp_path / "zoom.ckpt", reference_lora(mid=True))),
        tmp_path / "zoom.safetensors",
        dialect="original",
    )
    made = sm.convert(original, "diffusers", tmp_path / "zoom")
    pipeline.load_lora_weights(str(made), adapter_name="mine")
    from peft.utils import get_peft_model_state_dict

    layers = get_peft_model_state_dict(pipeline.unet, adapter_name="mine")
    AnimateDiffPipeline.save_lora_weights(tmp_path / "saved", unet_lora_layers=layers)
    again = sm.convert(tmp_path / "saved", "original", tmp_path / "again.safetensors")
    assert same(load_file(again), load_file(original))
