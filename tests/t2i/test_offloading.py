"""Parts that take turns on a GPU: the same numbers, nothing ever meets what lies elsewhere, and everyone comes home.

There is no GPU where these tests run. One that is not there takes its place: torch's fake tensors know their device and
refuse to be computed with those of another, as real ones do.
"""

import json
import os
import subprocess
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

from stillmotion.motion import MotionModule, plug
from stillmotion.sampling import Denoiser, Guidance, sample
from stillmotion.t2i import T2I, load_t2i
from stillmotion.t2i.controls import ip_adapter, load_control
from stillmotion.t2i.offloading import offloaded
from stillmotion.turns import place_of

from .control_models import (
    SIDE,
    make_adapter,
    make_controlnet,
    make_ip_adapter,
    make_sparse,
    pictures,
    save_image_encoder,
    t2i_of,
)
from .sdxl_models import make_pipe

FRAMES = 3
ALONE = ("controlnet", "t2i_adapter", "sparse_control", "scribble", "ip_adapter.bin")
CASES = {"none": (), **{name: (name,) for name in ALONE}, "all": ALONE}


@pytest.fixture(scope="module")
def root(pipe: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny models of both families, and every kind of control for the first."""
    root = tmp_path_factory.mktemp("models")
    pipe.save_pretrained(root / "sd15")
    make_pipe().save_pretrained(root / "sdxl")
    make_controlnet(pipe.unet).save_pretrained(root / "controlnet")
    make_adapter().save_pretrained(root / "t2i_adapter")
    make_sparse(simplified=True).save_pretrained(root / "sparse_control")
    make_sparse(simplified=False).save_pretrained(root / "scribble")
    save_image_encoder(root / "image_encoder")
    torch.save(make_ip_adapter(pipe.unet), root / "ip_adapter.bin")
    return root


def controls_of(root: Path, names: tuple[str, ...], t2i: T2I) -> list:
    return [load_control(root / name, t2i=t2i) for name in names]


def motion_for(t2i: T2I) -> MotionModule:
    sizes = {name: t2i.unet.config[name] for name in ("block_out_channels", "layers_per_block")}
    motion = MotionModule.from_variant("sdxl_beta" if t2i.is_xl else "v3", **sizes).eval().requires_grad_(False)
    for index, parameter in enumerate(motion.parameters()):  # zero by birth, and then it moves nothing
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return motion


def clip_of(t2i: T2I, controls: list, device: str | None) -> Tensor:
    """Return a short clip's pixels, everything plugged in, its parts called to `device` or computed where they are."""
    pixels, noise = pictures(FRAMES), torch.randn(1, 4, FRAMES, SIDE // 2, SIDE // 2, generator=torch.manual_seed(0))
    sampler = DDIMScheduler.from_config(t2i.scheduler_config, set_alpha_to_one=False)
    with ExitStack() as stack:
        stack.enter_context(plug(t2i.unet, motion_for(t2i), FRAMES))
        for control in controls:
            stack.enter_context(control.attached())
        if device is not None:
            stack.enter_context(offloaded(t2i, controls, torch.device(device)))
        guidance = Guidance(t2i.text(["a (ball:1.3)"]), t2i.text([""]), (5.0, 3.0, 1.5))
        said = [control.on(pixels) for control in controls]
        *_, last = sample(Denoiser(t2i.unet, said), sampler, noise, guidance, num_inference_steps=2)
        return t2i.decode(last.latents[0].movedim(1, 0))


@pytest.mark.parametrize("names", CASES.values(), ids=CASES)
def test_the_clip_is_the_same_and_the_models_are_what_they_were(
    pipe: StableDiffusionPipeline, root: Path, names: tuple[str, ...]
) -> None:
    t2i = t2i_of(pipe)
    before = {id(tensor) for part in t2i.parts.values() for tensor in part.parameters()}
    expected = clip_of(t2i, controls_of(root, names, t2i), None)
    assert torch.equal(clip_of(t2i, controls_of(root, names, t2i), "cpu"), expected)
    assert {id(tensor) for part in t2i.parts.values() for tensor in part.parameters()} == before
    assert not any(hasattr(module, "_hf_hook") for part in t2i.parts.values() for module in part.modules())


@pytest.fixture(scope="module")
def elsewhere(root: Path) -> dict[str, dict]:
    """What was seen in each case on a made-up device, which stays for as long as its process does."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this PyTorch is too old to make up a device")
    told = f"from tests.t2i.test_offloading import main; main({str(root)!r})"
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    made = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-4000:]
    return json.loads(made.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", [*CASES, "sdxl"])
def test_nothing_meets_what_lies_on_another_device(elsewhere: dict[str, dict], case: str) -> None:
    seen = elsewhere[case]
    assert "error" not in seen, seen["error"]
    assert seen["while the UNet computes"] == {"unet": "gadget:0", "vae": "cpu", "text_encoder": "cpu"}
    assert seen["after it"] == {"unet": "cpu", "vae": "cpu", "text_encoder": "cpu"}
    assert seen["outputs"] == ["cpu"] * 4


def main(root: str) -> None:
    """Print what is seen in every case."""
    backend_registration._setup_privateuseone_for_python_backend("gadget")
    ip_adapter.seen_by_clip = _seen
    fake_tensor.CONSTANT_NUMEL_LIMIT = 0  # single numbers would really be sent there
    found = {}
    for case, names in [*CASES.items(), ("sdxl", ())]:
        try:
            found[case] = _on_a_device_that_is_not_there(Path(root), "sdxl" if case == "sdxl" else "sd15", names)
        except Exception:  # noqa: BLE001  # the test of this case says it
            found[case] = {"error": traceback.format_exc(limit=-12)[-3000:]}
    sys.stdout.write(json.dumps(found))


def _on_a_device_that_is_not_there(root: Path, model: str, names: tuple[str, ...]) -> dict:
    t2i = load_t2i(root / model)
    controls, mode, seen = controls_of(root, names, t2i), FakeTensorMode(allow_non_fake_inputs=True), {}
    motion = motion_for(t2i)
    with ExitStack() as stack:
        stack.enter_context(plug(t2i.unet, motion, FRAMES))
        for control in controls:
            stack.enter_context(control.attached())
        stack.enter_context(offloaded(t2i, controls, torch.device("gadget")))
        for part in (*t2i.parts.values(), *(net for each in controls for net in (*each.at_each_step, *each.at_first))):
            _make_fake(part, mode)
        stack.enter_context(mode)
        stack.enter_context(torch.no_grad())
        noise = torch.randn(1, 4, FRAMES, SIDE // 2, SIDE // 2)
        guidance = Guidance(t2i.text(["a ball"]), t2i.text([""]), (5.0, 3.0, 1.5))
        said = [control.on(torch.rand(FRAMES, 3, SIDE, SIDE)) for control in controls]
        denoiser = Denoiser(t2i.unet, said)
        first = denoiser.guided(noise, torch.tensor(500), guidance)
        second = denoiser.guided(first.to(t2i.device), torch.tensor(250, device=t2i.device), guidance)
        seen["while the UNet computes"] = _places(t2i)
        back = t2i.encode_images(t2i.decode(second[0].movedim(1, 0)))
        seen["outputs"] = [str(each.device) for each in (guidance.text.tokens, first, second, back)]
        with pytest.raises(Exception, match="device"):  # the stand-in does refuse
            torch.ones(3, device="gadget") + torch.ones(3)
    seen["after it"] = _places(t2i)
    return seen


def _seen(pixels: Tensor, encoder: nn.Module) -> Tensor:
    """Return pictures as CLIP takes them; its own preparation leaves torch for Pillow."""
    side = encoder.config.image_size
    return torch.zeros(len(pixels), 3, side, side, device=place_of(encoder))


def _places(t2i: T2I) -> dict[str, str]:
    names = ("unet", "vae", "text_encoder")
    return {name: str(next(t2i.parts[name].parameters()).device) for name in names}


def _make_fake(part: nn.Module, mode: FakeTensorMode) -> None:
    for module in part.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and tensor.device.type != "meta":
                    fake = mode.from_tensor(tensor.data)
                    store[name] = nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_clip_is_as_on_the_cpu_and_nothing_stays_there(pipe: StableDiffusionPipeline, root: Path) -> None:
    t2i = t2i_of(pipe)
    torch.cuda.reset_peak_memory_stats()
    clip = clip_of(t2i, controls_of(root, ALONE, t2i), "cuda")
    assert torch.cuda.memory_allocated() == 0 and torch.cuda.max_memory_allocated() > 0
    torch.testing.assert_close(clip, clip_of(t2i, controls_of(root, ALONE, t2i), None), rtol=1e-3, atol=1e-3)
