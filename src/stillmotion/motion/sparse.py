"""SparseCtrl's encoder (Guo et al. 2023, arXiv 2311.16933): a ControlNet with motion in it, which sees some frames only.

What differs from a ControlNet: it never sees the noisy latents, zeros stand in for them; beside the pictures it takes a
mask of the frames that have one; and temporal layers in its way down carry what the pictures say to the other frames. So
it depends on the step by the timestep and the text alone, and what it makes of its pictures is computed once.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers import ControlNetModel
from jaxtyping import Float
from torch import Tensor, nn

from stillmotion.errors import MismatchError
from stillmotion.motion.frames import FrameCount
from stillmotion.motion.geometry import MotionGeometry
from stillmotion.motion.module import MotionModule
from stillmotion.motion.plug import hosts, motion_hook
from stillmotion.motion.variants import VARIANTS

SparseStyle = Literal["rgb", "scribble"]
"""What the pictures are: latents of photographs, one convolution above them; or drawings as RGB, a stack above them."""

Features = Float[Tensor, "images channels rows columns"]


class SparseEncoder(nn.Module):
    """Pictures of some frames in, what every frame's UNet is given for them out. Norms take every frame by itself."""

    def __init__(self, config: Mapping[str, Any], geometry: MotionGeometry, style: SparseStyle) -> None:
        """Build an untrained encoder.

        Args:
            config: The spatial layers, in the words of diffusers' `ControlNetModel`; its `conditioning_channels` count
                the mask.
            geometry: The temporal layers; one attention per block, on the way down only.
            style: What the pictures are.
        """
        super().__init__()
        self.style, self.max_frames = style, geometry.max_frames
        net = ControlNetModel(**config)
        # Both ends that depend on no step are taken off the net: what enters it is their sum.
        self.conv_in = net.conv_in
        self.embedding = net.controlnet_cond_embedding
        if style == "rgb":
            width = net.config.block_out_channels[0]
            self.embedding = nn.Conv2d(net.config.conditioning_channels, width, 3, padding=1)
        net.conv_in, net.controlnet_cond_embedding = nn.Identity(), nn.Identity()
        self.net = net
        self._frames = FrameCount(1)
        motion = MotionModule(geometry, VARIANTS["v3"])  # norms per frame, as in all of SparseCtrl
        sites = motion.sites()
        found = dict(hosts(net))
        if unfit := sites.keys() - found.keys():
            raise MismatchError(f"A SparseCtrl encoder of these widths has no layer for {min(unfit)}.")
        for name, site in sites.items():
            found[name].register_forward_hook(motion_hook(site, self._frames))
        for block, temporal in zip(net.down_blocks, motion.down_blocks, strict=True):
            block.motion_modules = temporal.motion_modules

    def file_names(self) -> dict[str, str]:
        """Return what every layer is called in files, by its name here."""
        renamed = {"embedding": "controlnet_cond_embedding"}
        names = {}
        for layer, _ in self.named_modules():
            head, dot, tail = layer.removeprefix("net.").partition(".")
            names[layer] = f"{renamed.get(head, head)}{dot}{tail}"
        return names

    def entrance(self, pictures: Float[Tensor, "pictures seen height width"]) -> Features:
        """Return what enters the net for each picture, and last for a frame without one.

        Args:
            pictures: Scaled latents for the style rgb; RGB in [0, 1] for scribble.
        """
        mask = torch.ones_like(pictures[:, :1])
        shown = torch.cat([pictures, mask], dim=1)
        blank = torch.zeros_like(shown[:1])
        # Zeros stand in for the noisy latents, of which `conv_in` leaves its bias.
        features = self.embedding(torch.cat([shown, blank]))
        return features + self.conv_in.bias.to(features)[:, None, None]

    def forward(
        self,
        entrance: Features,
        timesteps: Tensor,
        text: Float[Tensor, "images tokens features"],
        num_frames: int,
        strength: int | float = 1.0,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the residuals of the UNet's skip connections, and of its mid block, times `strength`.

        Args:
            entrance: Rows of what `entrance` returned, one per image; the frames of a clip are adjacent.
            timesteps: One for all, or one per image.
            text: Features of the prompt, one set of rows per image.
            num_frames: How many frames a clip has.
            strength: What the residuals are multiplied by.

        Raises:
            MismatchError: There are more frames than positions.
        """
        if num_frames > self.max_frames:
            raise MismatchError(
                f"This SparseCtrl encoder has positions for 1 to {self.max_frames} frames, not {num_frames}; use context "
                "windows of fewer frames."
            )
        self._frames.num_frames = num_frames
        nothing = entrance.new_zeros(())  # the pictures are in the entrance already
        down, mid = self.net(
            entrance,
            timesteps,
            encoder_hidden_states=text,
            controlnet_cond=nothing,
            conditioning_scale=strength,
            return_dict=False,
        )
        return tuple(down), mid
