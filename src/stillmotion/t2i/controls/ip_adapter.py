"""IP-Adapter (Ye et al. 2023): pictures as prompts, by attention of their own beside that to the text.

The layers are diffusers' own, made by its own reading of the files. They are in the UNet during a forward that an
IP-Adapter acts in, and not otherwise: what does not act costs nothing, and any number of them act together.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from stillmotion.errors import FileError, MismatchError
from stillmotion.sampling.control import Images, Moment, Rows, Steering
from stillmotion.t2i.controls.attention import Insertion, Layers, insertion_of
from stillmotion.t2i.controls.controlnet import require_family
from stillmotion.t2i.controls.image_encoder import load_image_encoder, seen_by_clip
from stillmotion.t2i.controls.model import ControlModel, Dose, Dosed, Kind, Pictures, rows_for
from stillmotion.t2i.controls.weights import ControlWeights
from stillmotion.t2i.models import T2I


class IPAdapter(ControlModel):
    """An IP-Adapter and the CLIP image encoder that it was made for. Attach it for as long as its controls are used."""

    kind: ClassVar[Kind] = "ip_adapter"

    def __init__(
        self, layers: Layers, encoder: CLIPVisionModelWithProjection, weights: ControlWeights, t2i: T2I
    ) -> None:
        super().__init__(weights.path, [weights.file], variant_of(weights.tensors))
        self.layers, self.encoder, self.t2i = layers, encoder, t2i

    @classmethod
    def load(cls, weights: ControlWeights, t2i: T2I, image_encoder: str | Path | None) -> "IPAdapter":
        """Return the adapter of a file, in the image model's dtype and place.

        Args:
            weights: What the file holds.
            t2i: The image model; nothing is put into its UNet yet.
            image_encoder: The folder of the CLIP image encoder; by default `image_encoder` beside the file or above it.

        Raises:
            FileError: There is no image encoder, or it cannot be read.
            MismatchError: The parts were not made for each other.
        """
        parts = _parts(weights.tensors)
        width = next(value.shape[1] for name, value in parts["ip_adapter"].items() if name.endswith("to_k_ip.weight"))
        require_family(weights, width, t2i, "an IP-Adapter")
        try:
            layers = Layers.made(parts, t2i.unet)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()
            raise MismatchError(
                f"{weights.path} does not fit the UNet of {t2i.source}, or is not whole ({reason[0] if reason else error!r})."
            ) from error
        encoder = load_image_encoder(encoder_folder(weights.path, image_encoder), t2i)
        wanted, given = layers.image_width, _width(encoder, plain=layers.plain)
        if wanted != given:
            raise MismatchError(
                f"{weights.path} takes picture features of width {wanted}, the image encoder gives {given}; use the image "
                "encoder that it was made for (ViT-H for most of Stable Diffusion 1.x)."
            )
        return cls(layers, encoder, weights, t2i)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Let the adapter's controls into the UNet; after it the UNet is what it was, its attention processors, too."""
        with insertion_of(self.t2i.unet):
            yield

    @property
    def at_each_step(self) -> Sequence[nn.Module]:
        """Return the layers that are put into the UNet, and what makes their tokens."""
        return (self.layers.projection, *self.layers.processors.values())

    @property
    def at_first(self) -> Sequence[nn.Module]:
        """Return the image encoder."""
        return (self.encoder,)

    def control(self, condition: Pictures, dose: Dose, indices: Sequence[int] | None) -> Dosed:  # noqa: ARG002
        """Return the control that one picture for all frames, or one for each, makes."""
        return _Steered(self, condition, dose)

    def tokens(self, condition: Pictures) -> tuple[Tensor, Tensor]:
        """Return what pictures are to the UNet, one row each, and what no picture is, one row."""
        pixels = seen_by_clip(condition, self.encoder)
        if self.layers.plain:
            features = self.encoder(pixels).image_embeds
            return self.layers.project(features), self.layers.project(torch.zeros_like(features[:1]))
        both = torch.cat([pixels, torch.zeros_like(pixels[:1])])
        features = self.encoder(both, output_hidden_states=True).hidden_states[-2]
        projected = self.layers.project(features)
        return projected[:-1], projected[-1:]


class _Steered(Dosed):
    """An IP-Adapter on its pictures."""

    def __init__(self, model: IPAdapter, condition: Pictures, dose: Dose) -> None:
        super().__init__(dose)
        self.model, self.condition = model, condition
        self.tokens: tuple[Tensor, Tensor] | None = None

    def steer(self, images: Images, timesteps: Tensor, text: Rows, moment: Moment) -> Steering:  # noqa: ARG002
        insertion = Insertion.at_work(self.model.t2i.unet)
        if insertion is None:
            raise MismatchError(f"{self.model} is not attached; sample within `with control.attached():`.")
        if self.tokens is None:
            self.tokens = self.model.tokens(self.condition)
        shown, nothing = self.tokens
        told = images[len(images) // 2 :] if moment.guided else images
        rows = rows_for(shown, told, moment)
        if moment.guided:
            rows = torch.cat([nothing.expand_as(rows), rows])
        rows = rows[:, None]  # one picture per image
        insertion.expect(rows, self.model.layers, self.dose.strength)
        return Steering(image_embeds=(rows,))


def variant_of(tensors: Mapping[str, Tensor]) -> str:
    """Return which kind of IP-Adapter it is: plain (one feature vector), plus (a resampler of patches), or full (all)."""
    if "image_proj.proj.weight" in tensors:
        return "plain"
    return "plus" if "image_proj.latents" in tensors else "full"


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the weights as diffusers reads them: of the projection, and of the UNet's attention."""
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts


def _width(encoder: Any, *, plain: bool) -> int:
    return int(encoder.config.projection_dim if plain else encoder.config.hidden_size)


def encoder_folder(path: Path, given: str | Path | None) -> Path:
    """Return the folder of the image encoder: the given one, or `image_encoder` as the released files lie beside it."""
    if given is not None:
        folder = Path(given).expanduser()
        if not (folder / "config.json").is_file():
            raise FileError(f"image_encoder: {folder} is no folder of a CLIP image encoder: it has no config.json.")
        return folder
    beside = [path.parent / "image_encoder", path.parent.parent / "image_encoder"]
    found = next((folder for folder in beside if (folder / "config.json").is_file()), None)
    if found is None:
        raise FileError(
            f"{path} is an IP-Adapter, which needs the CLIP image encoder that it was made for: give its folder as "
            f"image_encoder, or lay it at {beside[0]}."
        )
    return found
