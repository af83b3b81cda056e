"""Control models in every packaging that they are passed around in; and files that are none, or for another model."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.torch import save_file
from torch import Tensor

from stillmotion.checkpoints import inspect
from stillmotion.errors import FileError, MismatchError
from stillmotion.sampling.control import Moment
from stillmotion.t2i import T2I
from stillmotion.t2i.controls import ControlModel, load_control
from stillmotion.t2i.original_names import controlnet_layers

from .conftest import original
from .control_models import (
    SIDE,
    flat,
    make_adapter,
    make_controlnet,
    make_ip_adapter,
    make_sparse,
    pictures,
    save_image_encoder,
    t2i_of,
)

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def t2i(pipe: StableDiffusionPipeline) -> T2I:
    return t2i_of(pipe)


def added(model: ControlModel, size: int = SIDE, frames: int = 1) -> list[Tensor]:
    """Return all that a model adds for a picture."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(frames, 4, size // 2, size // 2, generator=generator)
    text = torch.randn(1, 7, 64, generator=generator).expand(frames, -1, -1)
    control = model.on(pictures(1, side=size))
    found = control(images, torch.tensor(300), text, Moment(frames=range(frames)))
    assert found is not None
    return [*found.down, *found.within, *(() if found.mid is None else (found.mid,))]


def assert_same(one: list[Tensor], other: list[Tensor], most: float = 1e-5) -> None:
    assert len(one) == len(other) > 0
    for ours, theirs in zip(one, other, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) <= most


@pytest.fixture(scope="module")
def controlnet(pipe: StableDiffusionPipeline) -> Any:
    return make_controlnet(pipe.unet)


@pytest.mark.parametrize("layout", ["original", "bare", "with a model", "diffusers", "half", "folder", "bgr"])
def test_controlnet(t2i: T2I, controlnet: Any, write: Write, tmp_path: Path, layout: str) -> None:
    state = {name: value.clone() for name, value in controlnet.state_dict().items()}
    named = original(state, controlnet_layers(controlnet), "control_model.")
    seen = pictures(1)
    if layout in ("folder", "bgr"):
        order = "rgb" if layout == "folder" else "bgr"
        other = type(controlnet).from_config({**controlnet.config, "controlnet_conditioning_channel_order": order})
        other.load_state_dict(state)
        path = tmp_path / "net"
        other.save_pretrained(path)
        controlnet = other
    elif layout == "original":
        path = write(named, "control.pth", wrap="state_dict")
    elif layout == "bare":
        path = write({name.removeprefix("control_model."): value for name, value in named.items()})
    elif layout == "with a model":
        path = write({**named, "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2)})
    else:
        path = write({name: value.half() if layout == "half" else value for name, value in state.items()})
    model = load_control(path, t2i=t2i)
    assert (model.kind, model.files) == ("controlnet", (next(path.glob("*.safetensors")) if path.is_dir() else path,))
    assert inspect(path).kind == "controlnet"
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 4, SIDE // 2, SIDE // 2, generator=generator)
    text = torch.randn(1, 7, 64, generator=generator)
    with torch.no_grad():
        down, mid = controlnet(images, 300, encoder_hidden_states=text, controlnet_cond=seen, return_dict=False)
    assert_same(added(model), [*down, mid], 1e-2 if layout == "half" else 1e-5)


def test_the_original_names_are_those_that_diffusers_converts(t2i: T2I) -> None:
    """It knows the released ones alone, whose pictures are shrunk three times."""
    net = ControlNetModel.from_unet(t2i.unet, conditioning_embedding_out_channels=(4, 8, 8, 8))
    state = dict(net.state_dict())
    back = convert_controlnet_checkpoint(original(state, controlnet_layers(net), "control_model."), dict(net.config))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


@pytest.mark.parametrize("kind", ["full_adapter", "light_adapter"])
@pytest.mark.parametrize("layout", ["original", "diffusers", "folder"])
@pytest.mark.parametrize("channels", [1, 3])
def test_t2i_adapter(t2i: T2I, write: Write, tmp_path: Path, kind: str, layout: str, channels: int) -> None:
    adapter = make_adapter(kind, factor=8, in_channels=channels)
    if kind == "light_adapter":  # whose last two blocks are equally wide
        t2i = replace(t2i, unet=UNet2DConditionModel.from_config({**t2i.unet.config, "block_out_channels": (32, 32)}))
    state = {name: value.clone() for name, value in adapter.state_dict().items()}
    if layout == "folder":
        adapter.save_pretrained(path := tmp_path / "adapter")
    elif layout == "diffusers":
        path = write(state)
    else:
        # The original numbers the ResNets of a full adapter through, and calls those of a light one `body`.
        names = {name: name.removeprefix("adapter.") for name in state}
        if kind == "light_adapter":
            names = {name: plain.replace(".resnets.", ".body.") for name, plain in names.items()}
        else:
            for name, plain in names.items():
                if place := re.fullmatch(r"body\.(\d)\.(resnets\.(\d)|in_conv)(.*)", plain):
                    number = 2 * int(place[1]) + int(place[3] or 0)
                    names[name] = f"body.{number}{'' if place[3] else '.in_conv'}{place[4]}"
        path = write({names[name]: value for name, value in state.items()}, "adapter.pth")
    model = load_control(path, t2i=t2i)
    assert (model.kind, model.variant, inspect(path).kind) == ("t2i_adapter", "sd15", "t2i_adapter")
    seen = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)).expand(1, 3, 64, 64)
    with torch.no_grad():
        assert_same(list(model.features(seen)), list(adapter(seen[:, :channels])))  # type: ignore[attr-defined]


def reference_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a SparseCtrl encoder's weights as the reference names them, the positional encodings left out."""
    named = {}
    for name, value in state.items():
        if name.endswith("pos_embed.pe"):
            continue
        theirs = re.sub(r"(motion_modules\.\d)\.", r"\1.temporal_transformer.", name)
        if theirs != name:
            theirs = theirs.replace(".attn1.", ".attention_blocks.0.").replace(".norm1.", ".norms.0.")
        named[theirs.replace(".norm3.", ".ff_norm.") if theirs != name else name] = value
    return named


@pytest.mark.parametrize("style", ["rgb", "scribble"])
@pytest.mark.parametrize("layout", ["folder", "reference", "trainer", "prefix", "diffusers"])
def test_sparse_control(t2i: T2I, write: Write, tmp_path: Path, style: str, layout: str) -> None:
    """On one frame, over which diffusers' norms pool nothing more, it adds what diffusers' own does."""
    theirs = make_sparse(simplified=style == "rgb")
    state = {name: value.clone() for name, value in theirs.state_dict().items()}
    if layout == "folder":
        theirs.save_pretrained(path := tmp_path / "sparse")
    elif layout == "diffusers":
        path = write(state)
    else:
        named = reference_names(state)
        prefix = {"trainer": "module.", "prefix": "controlnet."}.get(layout, "")
        named = {f"{prefix}{name}": value for name, value in named.items()}
        wrap = "state_dict" if layout == "trainer" else "controlnet" if layout == "reference" else None
        path = write(named, "sparse.ckpt", wrap=wrap)
    model = load_control(path, t2i=t2i)
    assert (model.kind, model.variant) == ("sparse_control", style)
    assert (inspect(path).kind, inspect(path).variant) == ("sparse_control", style)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 4, 1, SIDE // 2, SIDE // 2, generator=generator)
    text = torch.randn(1, 7, 64, generator=generator)
    seen = pictures(1)
    if style == "rgb":
        seen = t2i.encode_images(seen * 2 - 1)
    with torch.no_grad():
        down, mid = theirs(
            images,
            torch.tensor([300]),
            encoder_hidden_states=text,
            controlnet_cond=seen[:, :, None],
            conditioning_mask=torch.ones(1, 1, 1, *seen.shape[2:]),
            return_dict=False,
        )
    assert_same(added(model), [*down, mid])


def test_ip_adapter_needs_its_image_encoder(t2i: T2I, write: Write, tmp_path: Path) -> None:
    path = write(flat(make_ip_adapter(t2i.unet)), "ip.safetensors")
    with pytest.raises(FileError, match="needs the CLIP image encoder"):
        load_control(path, t2i=t2i)
    with pytest.raises(FileError, match=r"image_encoder: .*no config.json"):
        load_control(path, t2i=t2i, image_encoder=tmp_path)
    folder = save_image_encoder(tmp_path / "elsewhere")
    model = load_control(path, t2i=t2i, image_encoder=folder)
    assert (model.kind, model.variant, inspect(path).kind) == ("ip_adapter", "plain", "ip_adapter")
    other = make_ip_adapter(t2i.unet)
    other["image_proj"]["proj.weight"] = torch.zeros(256, 48)
    with pytest.raises(MismatchError, match="features of width 48, the image encoder gives 24"):
        load_control(write(flat(other), "other.safetensors"), t2i=t2i, image_encoder=folder)


SDXL = torch.zeros(4, 2048)
WRONG: dict[str, tuple[dict[str, Tensor], str]] = {
    "an SDXL ControlNet": (
        {"controlnet_cond_embedding.x": SDXL, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": SDXL},
        "is a ControlNet for Stable Diffusion XL; tiny is",
    ),
    "an SDXL IP-Adapter": (
        {"image_proj.proj.weight": SDXL, "ip_adapter.1.to_k_ip.weight": SDXL},
        "is an IP-Adapter for Stable Diffusion XL",
    ),
    "an SDXL T2I-Adapter": (
        {"conv_in.weight": torch.zeros(32, 768, 3, 3), "body.0.block1.weight": torch.zeros(32, 32, 3, 3)},
        "T2I-Adapter for Stable Diffusion XL",
    ),
    "a difference": (
        {"input_hint_block.0.weight": SDXL, "x.attn2.to_k.weight": torch.zeros(4, 64), "difference": torch.zeros(1)},
        "holds the difference",
    ),
    "half a ControlNet": (
        {"input_hint_block.0.weight": SDXL, "x.attn2.to_k.weight": torch.zeros(4, 64)},
        "the ControlNet is not whole",
    ),
    "half a SparseCtrl": (
        {
            "controlnet_cond_embedding.weight": torch.zeros(32, 5, 3, 3),
            "down_blocks.0.motion_modules.0.proj_in.weight": torch.zeros(32, 32),
            "x.attn2.to_k.weight": torch.zeros(4, 64),
        },
        "part of a SparseCtrl encoder only",
    ),
    "a face adapter": ({"image_proj.norm.weight": SDXL, "ip_adapter.1.to_k_ip.weight": SDXL}, "IP-Adapter of faces"),
    "a style adapter": ({"style_embedding": SDXL}, "T2I-Adapter of style"),
    "LLLite": ({"lllite_unet_x.weight": SDXL}, "ControlNet-LLLite"),
    "a motion module": (
        {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": SDXL},
        "but a motion module",
    ),
    "a LoRA": ({"lora_unet_x.lora_down.weight": SDXL}, "but a LoRA"),
    "a checkpoint": (
        {"cond_stage_model.transformer.x": SDXL, "model.diffusion_model.input_blocks.0.0.weight": SDXL},
        "but a Stable Diffusion checkpoint",
    ),
    "nothing known": ({"layer.weight": SDXL}, "its 1 tensors begin with layer.weight"),
}


@pytest.mark.parametrize(("tensors", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files_are_named(t2i: T2I, write: Write, tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises((FileError, MismatchError), match=message):
        load_control(write({name: value.clone() for name, value in tensors.items()}), t2i=t2i)


def test_weights_that_do_not_fit_are_named(t2i: T2I, controlnet: Any, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in controlnet.state_dict().items()}
    lost = {name: value for name, value in state.items() if name != "conv_in.bias"}
    for tensors, message in (
        (lost, "lacks 1 weights, first conv_in.bias"),
        ({**state, "x": SDXL}, "fit nowhere: 1 .*x"),
    ):
        save_file({name: value.clone() for name, value in tensors.items()}, path := tmp_path / "net.safetensors")
        with pytest.raises(MismatchError, match=message):
            load_control(path, t2i=t2i)
    for folder, message in ((tmp_path, "has no diffusion_pytorch_model"), (tmp_path / "none.pth", "does not exist")):
        with pytest.raises(FileError, match=message):
            load_control(folder, t2i=t2i)


def test_a_controlnet_of_other_widths_is_named(t2i: T2I, tmp_path: Path) -> None:
    wide = make_controlnet(t2i.unet)
    type(wide).from_config({**wide.config, "block_out_channels": (32, 96)}).save_pretrained(tmp_path / "wide")
    with pytest.raises(MismatchError, match=r"widths \(32, 96\)"):
        load_control(tmp_path / "wide", t2i=t2i)
