"""Every dialect of every loadable kind comes out as the same object, to the bit; what is not whole or not meant does not."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import stillmotion as sm
from stillmotion.errors import ConfigError, FileError, MismatchError

from .conftest import (
    WIDTHS,
    Tensors,
    image_unet,
    pairs,
    positions,
    reference_adapter,
    reference_lora,
    reference_motion,
    same,
    write,
)

TO_DIFFUSERS = [
    (".temporal_transformer", ""),
    (".attention_blocks.0.pos_encoder", ".pos_embed"),
    (".attention_blocks.0", ".attn1"),
    (".attention_blocks.1", ".attn2"),
    (".norms.0", ".norm1"),
    (".norms.1", ".norm2"),
    (".ff_norm", ".norm3"),
]
"""What diffusers' own conversion script replaces."""


def in_diffusers(tensors: Tensors) -> Tensors:
    """Return a reference motion module under diffusers' names."""
    result = {}
    for name, tensor in tensors.items():
        if ".attention_blocks.1.pos_encoder" not in name:
            for old, new in TO_DIFFUSERS:
                name = name.replace(old, new)  # noqa: PLW2901
            result[name] = tensor
    return result


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


WRAPPINGS: dict[str, Callable[[Tensors], object]] = {
    "flat": lambda t: t,
    "state_dict": lambda t: {"state_dict": t, "epoch": 3, "global_step": 9000},
    "module.": lambda t: prefixed("module.", t),
    "state_dict and module.": lambda t: {"state_dict": prefixed("module.", t), "epoch": 3, "optimizer": {"lr": 0.1}},
    "named, beside an optimizer": lambda t: {"motion": t, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
    "parameters": lambda t: {name: torch.nn.Parameter(tensor) for name, tensor in t.items()},
    "whole UNet": lambda t: t | image_unet(),
    "whole UNet, DDP": lambda t: {"state_dict": prefixed("module.", t | image_unet())},
    "dummy key": lambda t: t | {"animatediff_config": {}},
    "diffusers": in_diffusers,
    "diffusers, whole UNet": lambda t: in_diffusers(t) | image_unet(),
}


class TestMotionModules:
    @pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
    def test_every_wrapping(self, tmp_path: Path, wrap: Callable[[Tensors], object]) -> None:
        tensors = reference_motion()
        motion = sm.load(write(tmp_path / "mm.ckpt", wrap(tensors)), expect=sm.MotionModule)
        assert (motion.variant.name, motion.geometry.block_out_channels, motion.max_frames) == ("v3", WIDTHS, 32)
        assert same(motion.state_dict(), in_diffusers(tensors))

    @pytest.mark.parametrize("name", ["mm.safetensors", "mm.pt", "mm.pth", "mm.bin"])
    def test_every_ending(self, tmp_path: Path, name: str) -> None:
        motion = sm.load(write(tmp_path / name, reference_motion()), expect=sm.MotionModule)
        assert same(motion.state_dict(), in_diffusers(reference_motion()))

    def test_older_pickle(self, tmp_path: Path) -> None:
        torch.save(reference_motion(), tmp_path / "mm.ckpt", _use_new_zipfile_serialization=False)
        assert isinstance(sm.load(tmp_path / "mm.ckpt"), sm.MotionModule)

    @pytest.mark.parametrize(
        ("shape", "variant"),
        [
            ({"length": 24}, "v1"),
            ({"mid": True}, "v2"),
            ({}, "v3"),
            ({"widths": (32, 32, 64)}, "sdxl_beta"),
            ({"widths": (32, 64, 64, 64), "layers": 2}, "v3"),
            ({"widths": (32, 64, 64, 64), "layers": 2, "mid": True, "length": 24}, "v2"),
        ],
    )
    def test_variant_from_shape(self, tmp_path: Path, shape: dict, variant: str) -> None:
        motion = sm.load(write(tmp_path / "mm.ckpt", reference_motion(**shape)), expect=sm.MotionModule)
        assert motion.variant.name == variant
        assert motion.max_frames == shape.get("length", 32)

    def test_is_ready_to_be_used_and_owns_its_memory(self, tmp_path: Path) -> None:
        path = write(tmp_path / "mm.safetensors", reference_motion())
        motion = sm.load(path, expect=sm.MotionModule)
        assert not motion.training
        assert not any(parameter.requires_grad for parameter in motion.parameters())
        with path.open("r+b") as file:  # changed in place, as some programs do
            file.write(bytes(path.stat().st_size))
        assert same(motion.state_dict(), in_diffusers(reference_motion()))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_dtype_is_kept(self, tmp_path: Path, dtype: torch.dtype) -> None:
        motion = sm.load(write(tmp_path / "mm.ckpt", reference_motion(dtype=dtype)))
        assert isinstance(motion, sm.MotionModule)
        assert same(motion.state_dict(), in_diffusers(reference_motion(dtype=dtype)))

    def test_mixed_dtypes_are_kept(self, tmp_path: Path) -> None:
        tensors = {name: t if name.endswith(".pe") else t.half() for name, t in reference_motion().items()}
        motion = sm.load(write(tmp_path / "mm.ckpt", tensors), expect=sm.MotionModule)
        assert same(motion.state_dict(), in_diffusers(tensors))

    def test_positions_that_differ_from_the_formula_are_kept(self, tmp_path: Path) -> None:
        tensors = {name: t * 1.5 if name.endswith(".pe") else t for name, t in reference_motion().items()}
        motion = sm.load(write(tmp_path / "mm.ckpt", tensors), expect=sm.MotionModule)
        assert same(motion.state_dict(), in_diffusers(tensors))

    def test_positions_that_differ_within_a_block_are_refused(self, tmp_path: Path) -> None:
        tensors = reference_motion()
        name = next(name for name in tensors if name.endswith("attention_blocks.1.pos_encoder.pe"))
        tensors[name] = tensors[name] + 1
        with pytest.raises(FileError, match=re.escape(name)):
            sm.load(write(tmp_path / "mm.ckpt", tensors))

    @pytest.mark.parametrize(("variant", "length"), [("v1", 24), ("v3", 32)])
    def test_without_positions_the_variant_must_be_said(self, tmp_path: Path, variant: str, length: int) -> None:
        path = write(tmp_path / "trained.ckpt", {"state_dict": prefixed("module.", reference_motion(length=None))})
        with pytest.raises(MismatchError, match=r"no positional encoding.*say which it is by variant"):
            sm.load(path)
        motion = sm.load(path, expect=sm.MotionModule, variant=variant)
        assert (motion.variant.name, motion.max_frames) == (variant, length)
        stored = motion.state_dict()["down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe"]
        assert torch.equal(stored, positions(length, 32))

    def test_without_positions_a_mid_block_says_animate_lcm(self, tmp_path: Path) -> None:
        motion = sm.load(write(tmp_path / "lcm.ckpt", reference_motion(mid=True, length=None)), expect=sm.MotionModule)
        assert (motion.variant.name, motion.max_frames) == ("animate_lcm", 64)

    def test_norm_across_frames_is_an_option(self, module_file: Path) -> None:
        assert sm.load(module_file, expect=sm.MotionModule).variant.motion_norm == "per_frame"
        motion = sm.load(module_file, expect=sm.MotionModule, motion_norm="across_frames")
        assert motion.variant.motion_norm == "across_frames"

    def test_heads_are_an_option(self, module_file: Path) -> None:
        assert sm.load(module_file, expect=sm.MotionModule).geometry.num_attention_heads == 8
        motion = sm.load(module_file, expect=sm.MotionModule, num_attention_heads=4)  # widths 32 and 64
        assert motion.geometry.num_attention_heads == 4
        with pytest.raises(MismatchError, match="num_attention_heads is 7"):
            sm.load(module_file, num_attention_heads=7)

    @pytest.mark.parametrize(("variant", "words"), [("v4", "unknown"), ("v2", "lacks a mid block")])
    def test_variant_that_cannot_be(self, module_file: Path, variant: str, words: str) -> None:
        with pytest.raises(MismatchError, match=words):
            sm.load(module_file, variant=variant)

    def test_variant_against_what_we_wrote(self, module_file: Path, tmp_path: Path) -> None:
        ours = sm.convert(module_file, "stillmotion", tmp_path / "ours.safetensors")
        assert sm.load(ours, expect=sm.MotionModule, variant="v3").variant.name == "v3"
        with pytest.raises(MismatchError, match=r"says that it is a v3 module.*leave it out"):
            sm.load(ours, variant="v1")


class TestDiffusersFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir()
        write(folder / "diffusion_pytorch_model.safetensors", in_diffusers(reference_motion()))
        config = {"_class_name": "MotionAdapter", "motion_num_attention_heads": 4, "motion_max_seq_length": 32}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def test_config_is_read(self, folder: Path) -> None:
        motion = sm.load(folder, expect=sm.MotionModule)
        assert (motion.variant.name, motion.geometry.num_attention_heads) == ("v3", 4)

    def test_heads_per_level_must_be_one_number(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"motion_num_attention_heads": [4, 4]}))
        assert sm.load(folder, expect=sm.MotionModule).geometry.num_attention_heads == 4
        (folder / "config.json").write_text(json.dumps({"motion_num_attention_heads": [4, 8]}))
        with pytest.raises(MismatchError, match=r"\[4, 8\]"):
            sm.load(folder)
        assert sm.load(folder, expect=sm.MotionModule, num_attention_heads=8).geometry.num_attention_heads == 8

    def test_half_precision_name(self, folder: Path) -> None:
        weights = folder / "diffusion_pytorch_model.safetensors"
        weights.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
        assert isinstance(sm.load(folder), sm.MotionModule)

    def test_broken_config(self, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        with pytest.raises(FileError, match="is not JSON"):
            sm.load(folder)

    def test_pipeline_is_no_motion_module(self, tmp_path: Path) -> None:
        (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
        with pytest.raises(FileError, match="a folder of a diffusers pipeline, not a motion module"):
            sm.load(tmp_path, expect=sm.MotionModule)


class TestIncompleteModules:
    def refused(self, tmp_path: Path, tensors: Tensors, words: str) -> None:
        with pytest.raises(FileError, match=words):
            sm.load(write(tmp_path / "mm.ckpt", tensors))

    def test_missing_tensors(self, tmp_path: Path) -> None:
        tensors = reference_motion()
        del tensors["up_blocks.0.motion_modules.1.temporal_transformer.proj_in.weight"]
        self.refused(tmp_path, tensors, r"lacks 1 of its tensors \(up_blocks.0.motion_modules.1.proj_in.weight\)")

    def test_no_way_up(self, tmp_path: Path) -> None:
        tensors = {name: t for name, t in reference_motion().items() if not name.startswith("up_blocks")}
        self.refused(tmp_path, tensors, "part of a motion module only")

    def test_no_first_level(self, tmp_path: Path) -> None:
        tensors = {name: t for name, t in reference_motion().items() if not name.startswith("down_blocks.0")}
        self.refused(tmp_path, tensors, "part of a motion module only")

    def test_unknown_tensors_inside(self, tmp_path: Path) -> None:
        tensors = reference_motion()
        tensors["down_blocks.0.motion_modules.0.temporal_transformer.gate.weight"] = torch.zeros(2)
        self.refused(tmp_path, tensors, r"has 1 that belong to nothing \(down_blocks.0.motion_modules.0.gate.weight\)")

    def test_unknown_tensors_beside(self, tmp_path: Path) -> None:
        self.refused(tmp_path, reference_motion() | {"pose_encoder.weight": torch.zeros(2)}, "pose_encoder.weight")

    def test_wrong_shape(self, tmp_path: Path) -> None:
        tensors = reference_motion()
        tensors["up_blocks.0.motion_modules.1.temporal_transformer.proj_in.weight"] = torch.zeros(64, 32)
        self.refused(tmp_path, tensors, "does not fit together")

    def test_quantised(self, tmp_path: Path) -> None:
        tensors = {name: t.to(torch.int8) for name, t in reference_motion().items()}
        self.refused(tmp_path, tensors, "is quantised")


def lora_dialects() -> dict[str, Tensors]:
    """Return one MotionLoRA of one layer each of query and output, in every dialect."""
    site = "down_blocks.0.motion_modules.0"
    reference = f"{site}.temporal_transformer.transformer_blocks.0.attention_blocks.0"
    ours = f"{site}.transformer_blocks.0.attn1"
    kohya = "lora_unet_" + ours.replace(".", "_")
    q, out = pairs({"to_q": 32, "to_out.0": 32}, rank=4).values()

    def named(first: str, second: str, ends: tuple[str, str]) -> Tensors:
        return {first + ends[0]: q[0], first + ends[1]: q[1], second + ends[0]: out[0], second + ends[1]: out[1]}

    plain, peft = (".down.weight", ".up.weight"), (".lora_A.weight", ".lora_B.weight")
    return {
        "original": named(f"{reference}.processor.to_q_lora", f"{reference}.processor.to_out_lora", plain),
        "motiondirector": named(f"{reference}.processor.to_q_lora", f"{reference}.to_out.processor.0_lora", plain),
        "diffusers": named(f"unet.{ours}.processor.to_q_lora", f"unet.{ours}.processor.to_out_lora", plain),
        "peft": named(f"unet.{ours}.to_q", f"unet.{ours}.to_out.0", peft),
        "kohya": named(f"{kohya}_to_q", f"{kohya}_to_out_0", (".lora_down.weight", ".lora_up.weight")),
        "peft, its own": named(
            f"base_model.model.{ours}.to_q",
            f"base_model.model.{ours}.to_out.0",
            (".lora_A.default.weight", ".lora_B.default.weight"),
        ),
        "peft, older": named(f"unet.{ours}.to_q.lora", f"unet.{ours}.to_out.0.lora", plain),
        "trained with DDP": named(
            f"module.{reference}.processor.to_q_lora", f"module.{reference}.processor.to_out_lora", plain
        ),
    }


LORAS = lora_dialects()


class TestMotionLoras:
    @pytest.mark.parametrize("tensors", LORAS.values(), ids=LORAS)
    def test_every_dialect(self, tmp_path: Path, tensors: Tensors) -> None:
        lora = sm.load(write(tmp_path / "zoom.safetensors", tensors), expect=sm.MotionLora)
        expected = pairs({"to_q": 32, "to_out.0": 32}, rank=4)
        block = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1"
        assert (set(lora.weights), lora.rank) == ({f"{block}.to_q", f"{block}.to_out.0"}, 4)
        for layer, (down, up) in expected.items():
            assert torch.equal(lora.weights[f"{block}.{layer}"][0], down)
            assert torch.equal(lora.weights[f"{block}.{layer}"][1], up)

    def test_as_released(self, lora_file: Path) -> None:
        lora = sm.load(lora_file, expect=sm.MotionLora)
        assert (lora.name, lora.rank, len(lora.weights)) == ("v2_lora_ZoomIn.ckpt", 4, 7 * 2 * 4)

    def test_feed_forward_of_motiondirector(self, tmp_path: Path) -> None:
        block = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.ff.net"
        targets = {f"{block}.0.processor.proj_lora": 64, f"{block}.processor.2_lora": 64}
        tensors = {
            f"{stem}.{half}.weight": matrix
            for stem, pair in pairs(targets, 4).items()
            for half, matrix in zip(("down", "up"), pair, strict=True)
        }
        lora = sm.load(write(tmp_path / "zoom.ckpt", tensors), expect=sm.MotionLora)
        ours = "mid_block.motion_modules.0.transformer_blocks.0.ff.net"
        assert set(lora.weights) == {f"{ours}.0.proj", f"{ours}.2"}

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    @pytest.mark.parametrize("alpha", [4.0, 1.0, 3.0, 0.3])
    def test_alpha_is_folded_exactly(self, tmp_path: Path, alpha: float, dtype: torch.dtype) -> None:
        tensors: Tensors = {name: tensor.to(dtype) for name, tensor in LORAS["kohya"].items()}
        tensors |= {
            name.replace("lora_down.weight", "alpha"): torch.tensor(alpha)
            for name in tensors
            if name.endswith("lora_down.weight")
        }
        lora = sm.load(write(tmp_path / "zoom.safetensors", tensors), expect=sm.MotionLora)
        down, up = lora.weights["down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q"]
        stored_down, stored_up = (tensor for name, tensor in tensors.items() if "to_q.lora" in name)
        exact = torch.tensor(alpha).double() / 4 * stored_up.double()
        assert torch.equal(down.double(), stored_down.double())
        assert torch.equal(up.double(), exact if alpha in (4.0, 1.0) else exact.float().double())
        assert up.dtype is (dtype if alpha in (4.0, 1.0) else torch.float32)

    def test_half_a_pair(self, tmp_path: Path) -> None:
        tensors = reference_lora()
        tensors.pop(next(name for name in tensors if name.endswith("up.weight")))
        with pytest.raises(FileError, match="half a pair"):
            sm.load(write(tmp_path / "zoom.ckpt", tensors))

    def test_halves_of_different_rank(self, tmp_path: Path) -> None:
        tensors = reference_lora()
        name = next(name for name in tensors if name.endswith("up.weight"))
        tensors[name] = tensors[name][:, :2].clone()
        with pytest.raises(FileError, match="make no pair"):
            sm.load(write(tmp_path / "zoom.ckpt", tensors))

    def test_layers_that_do_not_move(self, tmp_path: Path) -> None:
        extra = {f"down_blocks.0.resnets.0.conv1_lora.{half}.weight": torch.zeros(4, 4) for half in ("down", "up")}
        with pytest.raises(FileError, match=r"down_blocks.0.resnets.0.conv1"):
            sm.load(write(tmp_path / "zoom.ckpt", reference_lora() | extra))


class TestDomainAdapters:
    def test_as_released(self, adapter_file: Path) -> None:
        adapter = sm.load(adapter_file, expect=sm.DomainAdapter)
        assert (adapter.rank, len(adapter.weights)) == (8, 24)
        assert "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0" in adapter.weights

    def test_with_prefix(self, tmp_path: Path) -> None:
        adapter = sm.load(write(tmp_path / "adapter.safetensors", prefixed("unet.", reference_adapter())))
        assert isinstance(adapter, sm.DomainAdapter)

    def test_names_of_an_image_lora_need_to_be_expected(self, tmp_path: Path, adapter_file: Path) -> None:
        tensors: Tensors = {}
        for target, (down, up) in sm.load(adapter_file, expect=sm.DomainAdapter).weights.items():
            tensors |= {f"unet.{target}.lora_A.weight": down, f"unet.{target}.lora_B.weight": up}
        path = write(tmp_path / "pytorch_lora_weights.safetensors", tensors)
        with pytest.raises(FileError, match=r"a LoRA of images.*expect=DomainAdapter"):
            sm.load(path)
        assert len(sm.load(path, expect=sm.DomainAdapter).weights) == 24


class TestExpectations:
    @pytest.mark.parametrize("named", ["module_file", "lora_file", "adapter_file"])
    @pytest.mark.parametrize("expect", [sm.MotionModule, sm.MotionLora, sm.DomainAdapter])
    def test_a_file_of_another_kind_is_named(self, request: pytest.FixtureRequest, named: str, expect: type) -> None:
        path = request.getfixturevalue(named)
        kinds = {"module_file": sm.MotionModule, "lora_file": sm.MotionLora, "adapter_file": sm.DomainAdapter}
        if kinds[named] is expect:
            assert isinstance(sm.load(path, expect=expect), expect)
            return
        with pytest.raises(FileError) as caught:
            sm.load(path, expect=expect)
        message = str(caught.value)
        names = {
            sm.MotionModule: "a motion module",
            sm.MotionLora: "a MotionLoRA",
            sm.DomainAdapter: "a domain adapter",
        }
        assert f"{path} is {names[kinds[named]]}" in message
        assert f"not {names[expect]}" in message
        assert f"expect={kinds[named].__name__}" in message

    def test_ranks_are_said(self, adapter_file: Path) -> None:
        with pytest.raises(FileError, match=r"is a domain adapter \(rank 8\), not a motion module; load it with"):
            sm.load(adapter_file, expect=sm.MotionModule)

    def test_several_types(self, module_file: Path, lora_file: Path, adapter_file: Path) -> None:
        for path in (lora_file, adapter_file):
            assert isinstance(sm.load(path, expect=(sm.MotionLora, sm.DomainAdapter)), sm.MotionLora | sm.DomainAdapter)
        with pytest.raises(FileError, match="not a MotionLoRA or a domain adapter"):
            sm.load(module_file, expect=(sm.MotionLora, sm.DomainAdapter))

    def test_what_is_in_no_file(self, module_file: Path) -> None:
        with pytest.raises(ConfigError, match="expected is one of MotionModule, MotionLora, DomainAdapter"):
            sm.load(module_file, expect=Tensor)  # type: ignore[type-var]

    @pytest.mark.parametrize(
        ("tensors", "words"),
        [
            (reference_motion() | {"conv_in.weight": torch.zeros(32, 9, 3, 3)}, "PIA"),
            (reference_motion() | {"img_encoder.weight": torch.zeros(2)}, "AnimateLCM-I2V"),
        ],
    )
    def test_motion_modules_of_other_kinds(self, tmp_path: Path, tensors: Tensors, words: str) -> None:
        with pytest.raises(FileError, match=f"cannot be plugged in here. It is {words}"):
            sm.load(write(tmp_path / "mm.ckpt", tensors))


def test_what_we_wrote_must_hold(tmp_path: Path, module_file: Path) -> None:
    from safetensors.torch import save_file

    def written(own: str) -> Path:
        save_file(reference_lora(), tmp_path / "x.safetensors", {"stillmotion": own})
        return tmp_path / "x.safetensors"

    for own, words in (
        ('{"kind": "motion_module"}', "says that it is a motion module, but holds a MotionLoRA"),
        ('{"kind": "motion_lora", "format": 99}', "newer Stillmotion"),
        ("{", "is not JSON"),
        ("[]", "does not say a kind"),
    ):
        with pytest.raises(FileError, match=words):
            sm.load(written(own))
