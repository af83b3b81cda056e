"""The denoiser: noisy clips in, the model's prediction out. Loss and sampling both go through it, so what is trained is
what is sampled.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float, Int, Num
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from stillmotion.products import faster_products
from stillmotion.sampling.control import Control, Moment, steering
from stillmotion.sampling.schedule import Diffusion
from stillmotion.sampling.text import Text, Tokens, as_text, joined, merged
from stillmotion.sampling.travel import TravellingText
from stillmotion.shapes import fold_frames, repeat_per_frame, unfold_frames

Latents = Float[Tensor, "batch channels frames height width"]


@dataclass(frozen=True)
class Guidance:
    """What clips are drawn towards, and how far from what (Ho and Salimans 2022); all of it may travel over the frames."""

    text: Float[Tensor, "told tokens features"] | Text | TravellingText
    """Features of the prompt: one set of rows per clip, one per frame (batch·frames), or prompts that travel."""
    empty: Float[Tensor, "led tokens features"] | Text | TravellingText
    """Features of the negative prompt, or of the empty one."""
    scale: float | tuple[float, ...] = 1.0
    """How far to go, or how far at each frame; 1 follows the prompt alone, and computes one half of the batch only."""

    def at(self, frames: Sequence[int], clips: int) -> "SettledGuidance":
        """Return what holds for some frames of each of `clips` clips."""
        text, empty = _rows(self.text, frames, clips), _rows(self.empty, frames, clips)
        if len(text) != len(empty):  # one travels, the other does not
            text, empty = (rows if len(rows) > clips else rows.per_frame(len(frames)) for rows in (text, empty))
        scales = {self.scale} if isinstance(self.scale, int | float) else {self.scale[frame] for frame in frames}
        if len(scales) == 1:
            return SettledGuidance(text, empty, scales.pop())
        varied = torch.tensor([self.scale[f] for f in frames] if isinstance(self.scale, tuple) else [])
        return SettledGuidance(text, empty, varied.to(text.tokens.device).view(-1, 1, 1))


@dataclass(frozen=True)
class SettledGuidance:
    """Guidance of some frames: features per clip or per frame, both alike, and the scale, which a prediction takes."""

    text: Text
    empty: Text
    scale: float | Float[Tensor, "frames 1 1"]


def _rows(text: Tokens | Text | TravellingText, frames: Sequence[int], clips: int) -> Text:
    """Return one set of rows per clip where all frames have the same, else one per frame."""
    if isinstance(text, TravellingText):
        return as_text(text.rows(frames[:1] if text.at_rest(frames) else frames)).repeat(clips)
    given = as_text(text)
    if len(given) == clips:
        return given
    length = len(given) // clips
    return given[[clip * length + frame for clip in range(clips) for frame in frames]]


class Denoiser:
    """A UNet, plugged with motion or plain, that takes clips.

    A plain UNet sees every frame as a picture of its own, so one frame makes it the image model. `controls` act on every
    prediction, each when and how strongly it says.
    """

    def __init__(self, unet: UNet2DConditionModel, controls: Sequence[Control] = ()) -> None:
        self.unet, self.controls = unet, tuple(controls)
        self._reads_text = [m for m in unet.modules() if isinstance(m, Attention) and m.is_cross_attention]

    def __call__(
        self,
        latents: Latents,
        timesteps: Num[Tensor, ""] | Int[Tensor, "batch"] | int | float,
        text: Tokens | Text,
        *,
        moment: Moment | None = None,
        **extra: Any,
    ) -> Latents:
        """Return the prediction for `latents` at one timestep for all or one per clip.

        `text` has one set of rows per clip, or one per frame (batch·frames). `moment` is what the controls go by; without
        it the latents are the whole clip, at its first step. `extra` goes to the UNet as it is, in image layout. The UNet
        computes in its own dtype, the prediction has the latents': a sampler adds up many small steps, and does so best
        in float32.
        """
        frames = latents.shape[2]
        shared = frames if len(text) == len(latents) else 1
        times = torch.as_tensor(timesteps, device=latents.device)
        times = times.repeat_interleave(frames) if times.ndim else times
        dtype = self.unet.dtype
        images, rows = fold_frames(latents).to(dtype), as_text(text).per_frame(shared).to(dtype)
        moment = replace(moment or Moment(frames=range(frames)), beside=rows.arguments())
        with faster_products(dtype, images.device):
            added = steering(self.controls, images, times, rows.tokens, moment)
            arguments = merged(moment.beside, added.arguments() if added else {}, extra)
            with self._projected_once(shared):
                predicted = self.unet(images, times, encoder_hidden_states=rows.tokens, **arguments).sample
        return unfold_frames(predicted.to(latents.dtype), frames)

    @contextmanager
    def _projected_once(self, shared: int) -> Iterator[None]:
        """Project keys and values of text once for each `shared` adjacent images, which all have the same.

        Not where gradients are kept: a checkpointed block is computed again in the backward pass, without these hooks.
        """
        sharing = shared > 1 and not torch.is_grad_enabled()
        # Looked up at each call: peft puts layers of its own in their place.
        layers = [layer for m in self._reads_text for layer in (m.to_k, m.to_v)] if sharing else []
        handles: list[RemovableHandle] = []
        for layer in layers:
            handles.append(layer.register_forward_pre_hook(lambda _, inputs: (inputs[0][::shared],)))
            handles.append(layer.register_forward_hook(lambda _, __, rows: repeat_per_frame(rows, shared)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def guided(
        self, latents: Latents, timestep: Tensor, guidance: Guidance, *, moment: Moment | None = None, **extra: Any
    ) -> Latents:
        """Return the guided prediction, both halves computed in one batch; it carries no gradients.

        `guidance` is the whole clip's; `moment.frames` says which of its frames the latents are.
        """
        whole = moment or Moment(frames=range(latents.shape[2]))
        settled = guidance.at(whole.frames, len(latents))
        if isinstance(settled.scale, int | float) and settled.scale == 1:
            return self(latents, timestep, settled.text, moment=moment, **extra)
        text = joined([settled.empty, settled.text])
        both = replace(whole, guided=True)
        without, told = self(torch.cat([latents, latents]), timestep, text, moment=both, **extra).chunk(2)
        return without + settled.scale * (told - without)

    def loss(
        self,
        latents: Latents,
        noise: Latents,
        timesteps: Int[Tensor, "batch"],
        text: Tokens | Text,
        diffusion: Diffusion,
    ) -> Float[Tensor, "batch"]:
        """Return each clip's mean squared error of the prediction: paper Eq. 2 for one frame, Eq. 7 for clips."""
        noisy = diffusion.add_noise(latents, noise, timesteps)
        predicted = self(noisy, timesteps, text)
        return (predicted - diffusion.target(latents, noise, timesteps)).float().square().mean((1, 2, 3, 4))
