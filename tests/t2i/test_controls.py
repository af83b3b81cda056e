"""Control models on clips: what diffusers' own pipelines compute on single frames, frame by frame, and nothing at strength 0."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from stillmotion.errors import ConfigError, MismatchError
from stillmotion.motion import MotionModule, plug
from stillmotion.sampling import Denoiser, Guidance, sample
from stillmotion.sampling.control import Control, Moment
from stillmotion.t2i import T2I
from stillmotion.t2i.controls import ControlModel, load_control

from .control_models import (
    SIDE,
    flat,
    make_adapter,
    make_controlnet,
    make_ip_adapter,
    make_sparse,
    pictures,
    save_image_encoder,
    shaken,
    t2i_of,
)

STEPS, SCALE, FRAMES = 3, 5.0, 3
KINDS = ("controlnet", "t2i_adapter", "ip_adapter", "sparse_control")


@pytest.fixture(scope="module")
def t2i(pipe: StableDiffusionPipeline) -> T2I:
    return t2i_of(pipe)


@pytest.fixture(scope="module")
def files(pipe: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file or folder of every kind of control."""
    root = tmp_path_factory.mktemp("controls")
    make_controlnet(pipe.unet).save_pretrained(root / "controlnet")
    make_adapter().save_pretrained(root / "t2i_adapter")
    make_sparse(simplified=True).save_pretrained(root / "sparse_control")
    make_sparse(simplified=False).save_pretrained(root / "scribble")
    save_image_encoder(root / "image_encoder")
    torch.save(make_ip_adapter(pipe.unet), root / "ip_adapter.bin")
    save_file(flat(make_ip_adapter(pipe.unet, plus=True)), root / "ip_adapter_plus.safetensors")
    found = {kind: root / kind for kind in ("controlnet", "t2i_adapter", "sparse_control", "scribble", "image_encoder")}
    return found | {
        "ip_adapter": root / "ip_adapter.bin",
        "ip_adapter_plus": root / "ip_adapter_plus.safetensors",
    }


@pytest.fixture(scope="module")
def models(t2i: T2I, files: dict[str, Path]) -> dict[str, ControlModel]:
    found = {kind: load_control(path, t2i=t2i) for kind, path in files.items() if kind != "image_encoder"}
    assert {model.kind for model in found.values()} == set(KINDS)
    assert found["ip_adapter_plus"].variant == "plus"
    assert (found["sparse_control"].variant, found["scribble"].variant) == ("rgb", "scribble")
    return found


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(1, 4, FRAMES, SIDE // 2, SIDE // 2, generator=torch.Generator().manual_seed(0))


def pil(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def clip(t2i: T2I, noise: Tensor, *controls: Control) -> Tensor:
    """Return the last latents of a short run."""
    sampler = DDIMScheduler.from_config(t2i.scheduler_config, set_alpha_to_one=False)
    *_, last = sample(Denoiser(t2i.unet, controls), sampler, noise, guidance(t2i), num_inference_steps=STEPS)
    return last.latents


def guidance(t2i: T2I) -> Guidance:
    return Guidance(t2i.encode_text(["a ball"]), t2i.encode_text([""]), SCALE)


@torch.no_grad()
def predict(t2i: T2I, noise: Tensor, *controls: Control, frames: Sequence[int] = range(FRAMES)) -> Tensor:
    """Return the guided prediction of the first step for some frames of the clip."""
    moment = Moment(frames=frames)
    return Denoiser(t2i.unet, controls).guided(
        noise[:, :, list(frames)], torch.tensor(500), guidance(t2i), moment=moment
    )


def theirs(pipeline: Any, noise: Tensor, **call: Any) -> Tensor:
    """Return what a pipeline of diffusers makes of the same noise."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "a ball",
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        latents=noise[:, :, 0],
        height=SIDE,
        width=SIDE,
        output_type="latent",
        **call,
    ).images[:, :, None]


def parts_of(pipe: StableDiffusionPipeline, t2i: T2I) -> dict[str, Any]:
    scheduler = DDIMScheduler.from_config(t2i.scheduler_config, set_alpha_to_one=False)
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    return {**parts, "unet": copy.deepcopy(t2i.unet), "scheduler": scheduler, "requires_safety_checker": False}


def assert_equal(ours: Tensor, expected: Tensor, *others: Tensor) -> None:
    """Hold the relative difference to 1e-5, and check that what is compared is something of its own."""
    assert float((ours - expected).norm() / expected.norm()) <= 1e-5
    for other in others:
        assert float((other - expected).norm() / expected.norm()) > 1e-2


def test_controlnet_as_in_diffusers(
    pipe: StableDiffusionPipeline, t2i: T2I, models: dict[str, ControlModel], noise: Tensor
) -> None:
    one, picture = noise[:, :, :1], pictures(1)
    made = StableDiffusionControlNetPipeline(**parts_of(pipe, t2i), controlnet=make_controlnet(pipe.unet))
    expected = theirs(made, one, image=pil(picture[0]), controlnet_conditioning_scale=0.7)
    ours = clip(t2i, one, models["controlnet"].on(picture, strength=0.7))
    assert_equal(ours, expected, clip(t2i, one))


def test_a_share_of_the_steps_as_in_diffusers(
    pipe: StableDiffusionPipeline, t2i: T2I, models: dict[str, ControlModel], noise: Tensor
) -> None:
    one, picture = noise[:, :, :1], pictures(1)
    made = StableDiffusionControlNetPipeline(**parts_of(pipe, t2i), controlnet=make_controlnet(pipe.unet))
    expected = theirs(made, one, image=pil(picture[0]), control_guidance_start=0.3, control_guidance_end=0.7)
    ours = clip(t2i, one, models["controlnet"].on(picture, start=0.3, end=0.6))
    assert_equal(ours, expected, clip(t2i, one), clip(t2i, one, models["controlnet"].on(picture)))


def test_t2i_adapter_as_in_diffusers(
    pipe: StableDiffusionPipeline, t2i: T2I, models: dict[str, ControlModel], noise: Tensor
) -> None:
    one, picture = noise[:, :, :1], pictures(1)
    made = StableDiffusionAdapterPipeline(**parts_of(pipe, t2i), adapter=make_adapter())
    expected = theirs(made, one, image=pil(picture[0]), adapter_conditioning_scale=0.6)
    ours = clip(t2i, one, models["t2i_adapter"].on(picture, strength=0.6))
    assert_equal(ours, expected, clip(t2i, one))


@pytest.mark.parametrize("kind", ["ip_adapter", "ip_adapter_plus"])
def test_ip_adapter_as_in_diffusers(
    pipe: StableDiffusionPipeline,
    t2i: T2I,
    models: dict[str, ControlModel],
    files: dict[str, Path],
    noise: Tensor,
    kind: str,
) -> None:
    one, picture = noise[:, :, :1], pictures(1, side=40)
    parts = parts_of(pipe, t2i)
    parts["image_encoder"] = CLIPVisionModelWithProjection.from_pretrained(files["image_encoder"])
    parts["feature_extractor"] = CLIPImageProcessorPil(size=24, crop_size=24)
    made = StableDiffusionPipeline(**parts)
    made.load_ip_adapter(str(files[kind].parent), subfolder="", weight_name=files[kind].name)
    made.set_ip_adapter_scale(0.8)
    expected = theirs(made, one, ip_adapter_image=pil(picture[0]))
    with models[kind].attached():
        ours = clip(t2i, one, models[kind].on(picture, strength=0.8))
        assert_equal(ours, expected, clip(t2i, one))


@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter", "ip_adapter"])
def test_each_frame_goes_by_its_own_picture(
    t2i: T2I, models: dict[str, ControlModel], noise: Tensor, kind: str
) -> None:
    """Without motion, a frame of a clip is what it is alone; a window of the clip takes its own frames' pictures."""
    model, seen = models[kind], pictures(FRAMES)
    with model.attached():
        whole = predict(t2i, noise, model.on(seen))
        for frame in (0, FRAMES - 1):
            alone = predict(t2i, noise[:, :, [frame]], model.on(seen[[frame]]), frames=[0])
            assert_equal(whole[:, :, [frame]], alone)
        assert_equal(predict(t2i, noise, model.on(seen), frames=(2, 0)), whole[:, :, [2, 0]])
        shared = predict(t2i, noise, model.on(seen[:1]))
        assert_equal(shared, predict(t2i, noise, model.on(seen[:1].repeat(FRAMES, 1, 1, 1))), whole)


def test_too_few_pictures_are_named(t2i: T2I, models: dict[str, ControlModel], noise: Tensor) -> None:
    with pytest.raises(MismatchError, match=r"Frame 2 of the clip has no picture.* has 2"):
        predict(t2i, noise, models["controlnet"].on(pictures(2)))


def test_pictures_of_another_size_are_named(t2i: T2I, models: dict[str, ControlModel], noise: Tensor) -> None:
    for kind in ("controlnet", "t2i_adapter", "sparse_control", "scribble"):
        with pytest.raises(MismatchError, match="32x32, the clip is 16x16"):
            predict(t2i, noise, models[kind].on(pictures(1, side=32)))


class Counter:
    """Counts the calls of whatever a control model is made of."""

    def __init__(self, model: Any) -> None:
        self.calls = 0
        names = ("net", "embedding", "encoder", "projection")
        self.parts = [part for name in names if isinstance(part := getattr(model, name, None), torch.nn.Module)]

    def __enter__(self) -> "Counter":
        self.handles = [part.register_forward_pre_hook(self._count) for whole in self.parts for part in whole.modules()]
        assert self.handles
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _count(self, *_: object) -> None:
        self.calls += 1


@pytest.mark.parametrize("kind", [*KINDS, "scribble", "ip_adapter_plus"])
def test_strength_0_is_leaving_it_out(t2i: T2I, models: dict[str, ControlModel], noise: Tensor, kind: str) -> None:
    """Bit for bit, and nothing is computed; so it is outside its share of the steps."""
    model = models[kind]
    with Counter(model) as counter, model.attached():
        ours = predict(t2i, noise, model.on(pictures(1), strength=0))
        late = predict(t2i, noise, model.on(pictures(1), start=0.9))
        assert not counter.calls
        control = model.on(pictures(1))
        changed = predict(t2i, noise, control)
        assert counter.calls
    assert torch.equal(ours, predict(t2i, noise))
    assert torch.equal(ours, late)
    assert not torch.allclose(ours, changed, rtol=1e-2)


@pytest.mark.parametrize("kind", ["controlnet", "scribble", "t2i_adapter", "ip_adapter"])
def test_what_depends_on_no_step_is_computed_once(
    t2i: T2I, models: dict[str, ControlModel], noise: Tensor, kind: str
) -> None:
    model: Any = models[kind]
    part = {
        "controlnet": lambda: model.embedding,
        "scribble": lambda: model.encoder.embedding,
        "t2i_adapter": lambda: model.net,
        "ip_adapter": lambda: model.encoder,
    }[kind]()
    calls: list[int] = []
    handle = part.register_forward_pre_hook(lambda *_: calls.append(1))
    with model.attached():
        clip(t2i, noise, model.on(pictures(1)))
    handle.remove()
    assert len(calls) == 1


def state(t2i: T2I) -> tuple[Any, ...]:
    """Return all of a UNet that an adapter could have touched."""
    unet = t2i.unet
    processors = {name: id(processor) for name, processor in unet.attn_processors.items()}
    hooks = len(unet._forward_hooks), len(unet._forward_pre_hooks)
    names = [name for name, _ in unet.named_modules()]
    return processors, hooks, names, unet.encoder_hid_proj, unet.config.encoder_hid_dim_type, dict(unet.config)


@pytest.mark.parametrize("fails", [False, True])
def test_an_ip_adapter_leaves_the_unet_as_it_was(
    t2i: T2I, models: dict[str, ControlModel], noise: Tensor, fails: bool
) -> None:
    model = models["ip_adapter"]
    before, weights = state(t2i), {name: value.clone() for name, value in t2i.unet.state_dict().items()}
    plain = predict(t2i, noise)
    with model.attached():
        assert t2i.unet.encoder_hid_proj is None
        if fails:
            handle = t2i.unet.mid_block.register_forward_hook(lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                predict(t2i, noise, model.on(pictures(1)))
            handle.remove()
        else:
            predict(t2i, noise, model.on(pictures(1)))
        assert torch.equal(predict(t2i, noise), plain)
    assert state(t2i) == before
    after = t2i.unet.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    with pytest.raises(MismatchError, match="is not attached"):
        predict(t2i, noise, model.on(pictures(1)))


def test_ip_adapters_of_several_pictures_act_together(
    pipe: StableDiffusionPipeline, t2i: T2I, models: dict[str, ControlModel], files: dict[str, Path], noise: Tensor
) -> None:
    """Two files and two strengths in one UNet, as diffusers has it; each within its own share of the steps."""
    one, first, second = noise[:, :, :1], pictures(1), pictures(1, seed=7)
    parts = parts_of(pipe, t2i)
    parts["image_encoder"] = CLIPVisionModelWithProjection.from_pretrained(files["image_encoder"])
    parts["feature_extractor"] = CLIPImageProcessorPil(size=24, crop_size=24)
    made = StableDiffusionPipeline(**parts)
    names = [files["ip_adapter"].name, files["ip_adapter_plus"].name]
    made.load_ip_adapter(str(files["ip_adapter"].parent), subfolder="", weight_name=names)
    made.set_ip_adapter_scale([0.4, 0.9])
    expected = theirs(made, one, ip_adapter_image=[pil(first[0]), pil(second[0])])
    plain, plus = models["ip_adapter"], models["ip_adapter_plus"]
    with plain.attached(), plus.attached():
        alone = clip(t2i, one, plain.on(first, strength=0.4))
        ours = clip(t2i, one, plain.on(first, strength=0.4), plus.on(second, strength=0.9))
        assert_equal(ours, expected, alone)
        apart = clip(t2i, one, plain.on(first, end=0.4), plus.on(second, start=0.6))
        assert float((apart - ours).abs().max()) > 1e-3


@pytest.fixture(scope="module")
def moving() -> MotionModule:
    return shaken(MotionModule.from_variant("v3", block_out_channels=(32, 64)), 8)


def test_all_of_them_move_together(
    t2i: T2I, moving: MotionModule, models: dict[str, ControlModel], noise: Tensor
) -> None:
    """Each adds something to all the others, and nothing at strength 0, bit for bit."""
    given = {"controlnet": FRAMES, "scribble": 1, "sparse_control": 2, "t2i_adapter": 1, "ip_adapter": FRAMES}

    def made(zero: str | None = None, without: str | None = None) -> list[Control]:
        return [
            models[kind].on(pictures(count), strength=0.0 if kind == zero else 0.5)
            for kind, count in given.items()
            if kind != without
        ]

    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(model.attached())
        stack.enter_context(plug(t2i.unet, moving, FRAMES))
        everything = predict(t2i, noise, *made())
        assert everything.isfinite().all()
        for kind in given:
            left_out = predict(t2i, noise, *made(zero=kind))
            assert float((everything - left_out).norm() / everything.norm()) > 1e-4, kind
        assert torch.equal(left_out, predict(t2i, noise, *made(without=kind)))


def test_motion_stays_out_of_the_controlnet(
    t2i: T2I, moving: MotionModule, models: dict[str, ControlModel], noise: Tensor
) -> None:
    control, moment = models["controlnet"].on(pictures(FRAMES)), Moment(frames=range(FRAMES))
    images, text = noise[0].transpose(0, 1), t2i.encode_text(["a ball"]).expand(FRAMES, -1, -1)
    before = control(images, torch.tensor(300), text, moment)
    with plug(t2i.unet, moving, FRAMES):
        after = control(images, torch.tensor(300), text, moment)
    assert before is not None and after is not None
    assert all(torch.equal(one, other) for one, other in zip(before.down, after.down, strict=True))


def test_sparse_pictures_stand_at_their_frames(t2i: T2I, models: dict[str, ControlModel], noise: Tensor) -> None:
    """A window sees the pictures of its own frames, in its own order, and frames without one like any other."""
    model = models["scribble"]
    images, text = noise[0].transpose(0, 1), t2i.encode_text(["a ball"]).expand(FRAMES, -1, -1)

    def steered(frames: tuple[int, ...], indices: list[int], seen: Tensor) -> Tensor:
        found = model.on(seen, indices=indices)(images, torch.tensor(300), text, Moment(frames=frames))
        assert found is not None and found.mid is not None
        return found.mid

    two = pictures(2)
    reference = steered((0, 1, 2), [0, 2], two)
    assert torch.equal(steered((4, 5, 9), [4, 9], two), reference)
    assert torch.equal(steered((0, 1, 2), [2, 0], two.flip(0)), reference)
    assert not torch.allclose(steered((0, 1, 2), [0, 1], two), reference)
    blank = steered((0, 1, 2), [7, 8], two)
    assert torch.equal(blank, steered((0, 1, 2), [7], pictures(1, seed=9)))
    assert not torch.allclose(blank, reference)


def test_numbers_out_of_range_are_named(t2i: T2I, models: dict[str, ControlModel], noise: Tensor) -> None:
    net, sparse = models["controlnet"], models["scribble"]
    with pytest.raises(ConfigError, match=r"start is 0.5 and end is 0.5"):
        net.on(pictures(1), start=0.5, end=0.5)
    with pytest.raises(ConfigError, match="strength is nan"):
        net.on(pictures(1), strength=float("nan"))
    with pytest.raises(MismatchError, match="only a SparseCtrl takes indices"):
        net.on(pictures(1), indices=[3])
    with pytest.raises(MismatchError, match="2 pictures for 1 frames"):
        sparse.on(pictures(2), indices=[3])
    with pytest.raises(MismatchError, match="each once"):
        sparse.on(pictures(2), indices=[3, 3])
    with pytest.raises(MismatchError, match="holds no picture"):
        net.on(pictures(1)[:0])
    long = torch.zeros(1, 4, 33, SIDE // 2, SIDE // 2)
    with pytest.raises(MismatchError, match="positions for 1 to 32 frames, not 33"):
        predict(t2i, long, sparse.on(pictures(1)), frames=range(33))
