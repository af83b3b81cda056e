"""SparseCtrl: single frames of a clip are given, as photographs or as drawings, and the others follow them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from stillmotion.errors import MismatchError
from stillmotion.motion.geometry import MotionGeometry
from stillmotion.motion.module import sinusoidal_positions
from stillmotion.motion.reference_names import POSITIONS, from_reference
from stillmotion.motion.sparse import SparseEncoder, SparseStyle
from stillmotion.sampling.control import Images, Moment, Rows, Steering
from stillmotion.t2i.controls.controlnet import require_family, require_size, text_width
from stillmotion.t2i.controls.geometry import controlnet_config
from stillmotion.t2i.controls.model import ControlModel, Dose, Dosed, Kind, Pictures
from stillmotion.t2i.controls.weights import ControlWeights
from stillmotion.t2i.filling import filled
from stillmotion.t2i.models import T2I
from stillmotion.turns import place_of

_MAX_FRAMES = 32  # positions of the released encoders, for files that store none
_FROM_FOLDER = {"attention_head_dim", "num_attention_heads", "norm_num_groups", "norm_eps", "act_fn"}
_SITE = ".motion_modules."


class SparseControl(ControlModel):
    """A SparseCtrl encoder of either style, with the image model whose VAE it sees photographs through."""

    kind: ClassVar[Kind] = "sparse_control"
    sparse: ClassVar[bool] = True

    def __init__(self, encoder: SparseEncoder, weights: ControlWeights, t2i: T2I) -> None:
        super().__init__(weights.path, [weights.file], encoder.style)
        self.encoder, self.t2i = encoder, t2i

    @property
    def takes(self) -> Literal["picture", "latents"]:  # type: ignore[override]  # as the file is, not the class
        """Return what the encoder looks at: latents of photographs, or drawings as they are."""
        return "latents" if self.encoder.style == "rgb" else "picture"

    @classmethod
    def load(cls, weights: ControlWeights, t2i: T2I) -> "SparseControl":
        """Return the encoder of a file or folder, in the image model's dtype and place.

        Raises:
            MismatchError: It was made for another family of image models, or its weights are not whole.
        """
        require_family(weights, text_width(weights.tensors), t2i, "a SparseCtrl encoder")
        encoder = make_encoder(weights)
        widths = encoder.net.config.block_out_channels
        if tuple(widths) != tuple(t2i.unet.config.block_out_channels):
            raise MismatchError(
                f"{weights.path} is a SparseCtrl encoder for UNets of widths {tuple(widths)}; that of {t2i.source} has "
                f"{tuple(t2i.unet.config.block_out_channels)}. Use one that was made for this model."
            )
        encoder = encoder.to(device=t2i.unet.device, dtype=t2i.unet.dtype)
        return cls(encoder.eval().requires_grad_(requires_grad=False), weights, t2i)

    @property
    def at_each_step(self) -> Sequence[nn.Module]:
        """Return the encoder, and what makes the pictures into what it takes."""
        return (self.encoder, self.encoder.embedding)

    def control(self, condition: Pictures, dose: Dose, indices: Sequence[int] | None) -> Dosed:
        """Return the control that pictures of the frames `indices`, by default the first ones, make."""
        frames = tuple(range(len(condition)) if indices is None else indices)
        if len(frames) != len(condition):
            raise MismatchError(f"{self}: {len(condition)} pictures for {len(frames)} frames; give one for each.")
        if len(set(frames)) < len(frames) or min(frames) < 0:
            raise MismatchError(f"{self}: indices {list(frames)}: expected frames from 0 on, each once.")
        return _Steered(self, condition, frames, dose)

    def entrance(self, condition: Pictures) -> Tensor:
        """Return what enters the net for each picture, and last for a frame without one."""
        if self.takes == "latents":
            condition = self.t2i.encode_images(condition * 2 - 1)
        weight = self.encoder.conv_in.weight
        return self.encoder.entrance(condition.to(place_of(self.encoder), weight.dtype))


class _Steered(Dosed):
    """A SparseCtrl encoder on its pictures."""

    def __init__(self, model: SparseControl, condition: Pictures, frames: tuple[int, ...], dose: Dose) -> None:
        super().__init__(dose)
        self.model, self.condition = model, condition
        self.place = {frame: row for row, frame in enumerate(frames)}
        self.entrance: Tensor | None = None

    def steer(self, images: Images, timesteps: Tensor, text: Rows, moment: Moment) -> Steering:
        if self.entrance is None:
            self.entrance = self.model.entrance(self.condition)
        require_size(self.entrance, images, self.condition, self.model)
        blank = len(self.place)
        rows = torch.tensor([self.place.get(frame, blank) for frame in moment.frames], device=images.device)
        clips = len(images) // len(moment.frames)
        down, mid = self.model.encoder(
            self.entrance[rows.repeat(clips)], timesteps, text, len(moment.frames), self.dose.strength
        )
        return Steering(down=down, mid=mid)


def make_encoder(weights: ControlWeights) -> SparseEncoder:
    """Return the encoder of weights in the reference's names or diffusers', as stored.

    Raises:
        MismatchError: Weights are missing, or too many.
    """
    tensors = {_named_as_today(name): value for name, value in weights.tensors.items()}
    style: SparseStyle = "rgb" if "controlnet_cond_embedding.weight" in tensors else "scribble"
    known: dict[str, Any] = {"has_mid_block": False, "has_up_blocks": False}
    if heads := weights.config.get("motion_num_attention_heads"):
        known["num_attention_heads"] = heads
    if not any(name.endswith(POSITIONS) for name in tensors):
        known["max_frames"] = weights.config.get("motion_max_seq_length", _MAX_FRAMES)
    try:
        config = controlnet_config(tensors)
        shapes = {name: tuple(value.shape) for name, value in tensors.items() if _SITE in name}
        geometry = MotionGeometry.from_shapes(shapes, **known)
        config |= {name: weights.config[name] for name in _FROM_FOLDER if weights.config.get(name) is not None}
        with torch.device("meta"):
            encoder = SparseEncoder(config, geometry, style)
    except (KeyError, MismatchError) as error:
        raise MismatchError(f"{weights.path} holds part of a SparseCtrl encoder only: {error}") from error
    state = _with_positions(encoder, tensors)
    otherwise = "the SparseCtrl encoder is not whole, or of a kind that is not known here"
    return filled(encoder, state, encoder.file_names(), str(weights.path), otherwise)


def _named_as_today(name: str) -> str:
    """Return what a weight of SparseCtrl is called by diffusers, whose names this project uses."""
    if _SITE not in name:
        return name
    head, _, tail = name.partition(_SITE)
    index, _, tail = tail.partition(".")
    return f"{head}{_SITE}{index}.{from_reference(tail)}"


def _with_positions(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the positional encodings that the file left out, as the reference's own loader expects."""
    state = dict(tensors)
    for name, wanted in encoder.state_dict().items():
        stored = name.removeprefix("net.")
        if name.endswith(POSITIONS) and stored not in state:
            state[stored] = sinusoidal_positions(*wanted.shape[1:])
    return state
