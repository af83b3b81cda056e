"""The denoiser: noisy clips in, the model's prediction out. Loss and sampling both go through it, so what is trained is
what is sampled.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float, Int, Num
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from stillmotion.sampling.control import Control, Moment, steering
from stillmotion.sampling.schedule import Diffusion
from stillmotion.shapes import fold_frames, repeat_per_frame, unfold_frames

Latents = Float[Tensor, "batch channels frames height width"]
Text = Float[Tensor, "batch tokens features"]


@dataclass(frozen=True)
class Guidance:
    """What a clip is drawn towards, and how far from what (Ho and Salimans 2022)."""

    text: Text
    """Features of the prompt."""
    empty: Text
    """Features of the negative prompt, or of the empty one."""
    scale: float = 1.0
    """How far to go; 1 follows the prompt alone, and computes one half of the batch only."""


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
        text: Text,
        *,
        moment: Moment | None = None,
        **extra: object,
    ) -> Latents:
        """Return the prediction for `latents` at one timestep for all or one per clip.

        `text` has one set of rows per clip, or one per frame (batch·frames). `moment` is what the controls go by; without
        it the latents are the whole clip, at its first step. `extra` goes to the UNet as it is, in image layout. The UNet
        computes in its own dtype, the prediction has the latents': a sampler adds up many small steps, and does so best
        in float32.
        """
        frames = latents.shape[2]
        shared = frames if len(text) == len(latents) else 1
        rows = repeat_per_frame(text, shared)
        times = torch.as_tensor(timesteps, device=latents.device)
        times = times.repeat_interleave(frames) if times.ndim else times
        dtype = self.unet.dtype
        images, rows = fold_frames(latents).to(dtype), rows.to(dtype)
        added = steering(self.controls, images, times, rows, moment or Moment(frames=range(frames)))
        with self._projected_once(shared):
            arguments = {**(added.arguments() if added else {}), **extra}
            predicted = self.unet(images, times, encoder_hidden_states=rows, **arguments).sample
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

    def guided(
        self, latents: Latents, timestep: Tensor, guidance: Guidance, *, moment: Moment | None = None, **extra: object
    ) -> Latents:
        """Return the guided prediction, both halves computed in one batch."""
        if guidance.scale == 1:
            return self(latents, timestep, guidance.text, moment=moment, **extra)
        text = torch.cat([guidance.empty, guidance.text])
        both = replace(moment or Moment(frames=range(latents.shape[2])), guided=True)
        without, told = self(torch.cat([latents, latents]), timestep, text, moment=both, **extra).chunk(2)
        return without + guidance.scale * (told - without)

    def loss(
        self, latents: Latents, noise: Latents, timesteps: Int[Tensor, "batch"], text: Text, diffusion: Diffusion
    ) -> Float[Tensor, "batch"]:
        """Return each clip's mean squared error of the prediction: paper Eq. 2 for one frame, Eq. 7 for clips."""
        noisy = diffusion.add_noise(latents, noise, timesteps)
        predicted = self(noisy, timesteps, text)
        return (predicted - diffusion.target(latents, noise, timesteps)).float().square().mean((1, 2, 3, 4))
