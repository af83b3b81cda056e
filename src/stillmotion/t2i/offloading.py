"""Models larger than the GPU's memory: what does not compute just now waits in the computer's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from stillmotion.t2i.controls.model import ControlModel
from stillmotion.t2i.models import T2I
from stillmotion.turns import Part, part_of, taking_turns


@contextmanager
def offloaded(t2i: T2I, controls: Sequence[ControlModel], device: torch.device) -> Iterator[None]:
    """Let text encoders, UNet and VAE of a model on the CPU compute on `device`, each in its turn.

    With the UNet go what is plugged into it and what steers it at each step. All else stays on the CPU: latents, samplers
    and text are small.
    """
    encoders = [part for name, part in t2i.parts.items() if name.startswith("text_encoder")]
    parts = [
        part_of(*encoders, depth=2),  # their last norm and projection are called apart
        part_of(t2i.unet, *(net for control in controls for net in control.at_each_step)),
        Part((t2i.vae,), doors=tuple(t2i.vae.children())),  # it is never called itself
        *(part_of(net) for control in controls for net in control.at_first),
    ]
    with taking_turns(parts, device):
        yield
