"""Tune-A-Video: its attention beside a plain one, an image model that comes out untouched, inversion, tuning and resuming."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from torch import Tensor

import stillmotion as sm
from stillmotion.animate.clip_work import Clock
from stillmotion.baselines import TuneAVideoConfig, Tuned, making
from stillmotion.baselines.attending import attending, first_and_previous, transformer_blocks
from stillmotion.baselines.inversion import inverted
from stillmotion.baselines.methods import TuneAVideo
from stillmotion.baselines.one_clip import FrameAttention, OneClip
from stillmotion.baselines.tuning import clip_latents
from stillmotion.sampling import Denoiser, Guidance, sample
from stillmotion.t2i import T2I

FRAMES = 4


@pytest.fixture
def config(tiny_model: Path, video: Path, tmp_path: Path) -> TuneAVideoConfig:
    return TuneAVideoConfig(
        prompt="a blue ball rolling right",
        video=video,
        video_prompt="a red box rolling right",
        model=str(tiny_model),
        num_frames=FRAMES,
        num_inference_steps=4,
        guidance_scale=1.0,
        num_tuning_steps=3,
        learning_rate=1e-3,
        tuning_dir=tmp_path / "tuning",
        seed=5,
        device="cpu",
        dtype="float32",
    )


@pytest.fixture
def one_clip(t2i: T2I) -> OneClip:
    return OneClip(t2i.unet, len)


@pytest.fixture(scope="module")
def session() -> sm.Session:
    """Keeps the model loaded between jobs."""
    return sm.Session()


def sampler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    )


def plain_attention(layer: torch.nn.Module, tokens: Tensor) -> Tensor:
    """Return sparse-causal attention, frame by frame and head by head, as the paper writes it (Eq. 5)."""
    heads, found = layer.heads, []
    for frame in range(len(tokens)):
        query = layer.to_q(tokens[frame])
        seen = torch.cat([tokens[0], tokens[max(frame - 1, 0)]])
        key, value = layer.to_k(seen), layer.to_v(seen)
        parts = zip(query.chunk(heads, 1), key.chunk(heads, 1), value.chunk(heads, 1), strict=True)
        found.append(
            layer.to_out[0](torch.cat([F.softmax(q @ k.T / q.shape[1] ** 0.5, -1) @ v for q, k, v in parts], 1))
        )
    return torch.stack(found)


@torch.no_grad()
def test_sparse_causal_attention_is_the_papers(t2i: T2I) -> None:
    _, block = next(transformer_blocks(t2i.unet))
    tokens = torch.randn(2, FRAMES, 6, 16, generator=torch.Generator().manual_seed(0))
    with attending(t2i.unet, first_and_previous(FRAMES)):
        ours = block.attn1(tokens.flatten(0, 1)).unflatten(0, (2, FRAMES))
    for clip in range(2):
        torch.testing.assert_close(ours[clip], plain_attention(block.attn1, tokens[clip]), atol=1e-6, rtol=1e-5)
    alone = block.attn1(tokens.flatten(0, 1)).unflatten(0, (2, FRAMES))
    torch.testing.assert_close(ours[:, 0], alone[:, 0])  # the same tokens twice
    assert not torch.allclose(ours[:, 1:], alone[:, 1:], atol=1e-3)


@torch.no_grad()
def test_attention_over_frames_sees_one_place_of_all_frames(t2i: T2I) -> None:
    _, block = next(transformer_blocks(t2i.unet))
    torch.manual_seed(0)
    layer = FrameAttention(block.attn1)
    tokens = torch.randn(2 * FRAMES, 6, 16)
    assert torch.equal(layer(tokens, FRAMES), tokens)
    torch.nn.init.normal_(layer.attention.to_out[0].weight)
    changed = tokens.clone()
    changed[1, 2, 0] += 1  # a place of the first clip's second frame
    moved = (layer(changed, FRAMES) - changed - (layer(tokens, FRAMES) - tokens)).abs().amax(-1) > 1e-6
    assert moved[:FRAMES, 2].all()
    moved[:FRAMES, 2] = False
    assert not moved.any()


@torch.no_grad()
def test_at_birth_it_is_the_image_model_with_sparse_causal_attention(t2i: T2I, one_clip: OneClip) -> None:
    before, parts = copy.deepcopy(t2i.unet.state_dict()), list(t2i.unet.parameters())
    noisy = torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = t2i.encode_text(["a red ball"]).expand(FRAMES, -1, -1)
    with attending(t2i.unet, first_and_previous(FRAMES)):
        wanted = t2i.unet(noisy, 300, encoder_hidden_states=text).sample
    with one_clip.at_work(FRAMES, "per_frame"):
        assert torch.equal(t2i.unet(noisy, 300, encoder_hidden_states=text).sample, wanted)
    with one_clip.at_work(FRAMES, "across_frames"):
        assert not torch.allclose(t2i.unet(noisy, 300, encoder_hidden_states=text).sample, wanted, atol=1e-4)
    assert all(ours is theirs for ours, theirs in zip(t2i.unet.parameters(), parts, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in t2i.unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in t2i.unet.modules())


def test_the_papers_parameters_are_tuned_and_no_other(t2i: T2I, one_clip: OneClip) -> None:
    widths = [block.attn1.query_dim for _, block in transformer_blocks(t2i.unet)]
    wanted = sum(2 * width**2 for width in widths) + sum(4 * width**2 + width for width in widths)
    assert sum(p.numel() for p in one_clip.parameters() if p.requires_grad) == wanted
    noisy = torch.randn(1, 4, FRAMES, 8, 8)
    with torch.no_grad():
        for attention in one_clip.attentions.values():
            attention.attention.to_out[0].weight.fill_(0.1)  # at birth zero lets no gradient through
    with one_clip.at_work(FRAMES):
        Denoiser(t2i.unet)(noisy, 300, t2i.encode_text(["a"])).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in one_clip.parameters())
    assert all(p.grad is None for p in t2i.unet.parameters())


class Certain(Denoiser):
    """A denoiser that always sees the same noise, and says how often it was asked."""

    def __call__(self, latents: Tensor, timesteps: Any, text: Tensor, **_: Any) -> Tensor:  # noqa: ARG002  # the denoiser's
        asked.append(int(timesteps))
        return torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))


asked: list[int] = []


def test_inversion_is_ddim_run_backwards(t2i: T2I) -> None:
    latents = torch.randn(1, 4, FRAMES, 8, 8, generator=torch.Generator().manual_seed(0))
    text = t2i.encode_text([""])
    asked.clear()
    steps = list(inverted(Certain(t2i.unet), sampler(), latents, text, num_inference_steps=5))
    assert asked == [1, 201, 401, 601, 801] and [step.index for step in steps] == [1, 2, 3, 4, 5]
    told, noise = sampler().alphas_cumprod, Certain(t2i.unet)(latents, 0, text)
    wanted = latents
    for before, after in zip(
        [1.0, *told[[1, 201, 401, 601]].tolist()], told[[1, 201, 401, 601, 801]].tolist(), strict=True
    ):
        clean = (wanted - (1 - before) ** 0.5 * noise) / before**0.5
        wanted = after**0.5 * clean + (1 - after) ** 0.5 * noise
    torch.testing.assert_close(steps[-1].latents, wanted, atol=1e-5, rtol=1e-5)
    guidance = Guidance(text, text)
    *_, last = sample(Certain(t2i.unet), sampler(), steps[-1].latents, guidance, num_inference_steps=5)
    torch.testing.assert_close(last.latents, latents, atol=1e-4, rtol=0)


def test_the_tuning_clip_comes_back_from_its_own_noise(config: TuneAVideoConfig, t2i: T2I) -> None:
    same = config.replace(prompt=config.video_prompt, width=32, height=32)
    wanted = clip_latents(same, t2i)
    text = t2i.encode_text([same.prompt])

    def distance(start: str) -> float:
        method = TuneAVideo(same.replace(start=start), t2i)
        list(method.prepared(Clock(), never))
        with method.at_work():
            *_, last = method.steps(5, Guidance(text, text), never)
        return float((last.latents - wanted).square().mean())

    assert distance("inverted") < 0.2 * distance("noise")


def never() -> bool:
    return False


def tune(config: TuneAVideoConfig, session: sm.Session, stop_after: int | None = None) -> Iterator[Tuned]:
    done = 0

    def cancel() -> bool:
        return stop_after is not None and done >= stop_after

    for event in making(config, cancel=cancel, session=session):
        if isinstance(event, Tuned):
            done = event.step
            yield event


def test_a_tuning_learns_and_goes_on_exactly(config: TuneAVideoConfig, session: sm.Session, tmp_path: Path) -> None:
    longer = config.replace(num_tuning_steps=5, num_inference_steps=2, start="noise")
    whole = sm.baseline(longer.replace(tuning_dir=tmp_path / "whole"), session=session)
    with pytest.raises(sm.Cancelled, match=r"after 3 of 5 steps of the tuning\. The state is kept"):
        list(tune(longer, session, stop_after=2))
    seen: list[object] = []
    resumed = sm.baseline(longer, progress=seen.append, session=session)
    assert [event.step for event in seen if isinstance(event, Tuned)] == [4, 5]
    assert (resumed.frames == whole.frames).all()
    again: list[object] = []
    assert (sm.baseline(longer, progress=again.append, session=session).frames == whole.frames).all()
    assert not [event for event in again if isinstance(event, Tuned)]
    learnt = load_file(tmp_path / "tuning" / "step-5" / "weights.safetensors")
    outputs = [value for name, value in learnt.items() if name.endswith("to_out.0.weight")]
    assert outputs and all(value.abs().max() > 0 for value in outputs)


def test_half_precision_tunes_in_float32_and_recomputes(config: TuneAVideoConfig) -> None:
    seen: list[object] = []
    half = config.replace(dtype="bfloat16", gradient_checkpointing=True, num_tuning_steps=2, num_inference_steps=2)
    clip = sm.baseline(half, progress=seen.append)
    first, second = (event.loss for event in seen if isinstance(event, Tuned))
    assert first != second and clip.frames.std() > 1
    (state,) = (half.tuning_dir or Path()).glob("step-2/weights.safetensors")
    assert {str(value.dtype) for value in load_file(state).values()} == {"torch.float32"}


def test_a_folder_of_another_tuning_is_refused(config: TuneAVideoConfig, session: sm.Session) -> None:
    list(tune(config, session))
    with pytest.raises(sm.ConfigError, match="caption was 'a red box rolling right', now 'another'"):
        sm.baseline(config.replace(video_prompt="another"), session=session)
    with pytest.raises(sm.ConfigError, match="holds a tuning of 3 steps"):
        making(config.replace(num_tuning_steps=2))


def test_a_short_or_missing_clip_is_refused_before_anything_is_loaded(config: TuneAVideoConfig, tmp_path: Path) -> None:
    with pytest.raises(sm.ConfigError, match=r"4 frames at frame_stride 3 need 10, but .* has 8"):
        making(config.replace(frame_stride=3))
    with pytest.raises(sm.FileError, match=r"none\.mp4"):
        making(config.replace(video=tmp_path / "none.mp4"))
    assert not (tmp_path / "tuning").exists()
