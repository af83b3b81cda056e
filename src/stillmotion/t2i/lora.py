"""LoRAs of the image model: a style, a character, learnt as low-rank updates of the UNet and the text encoder.

They act over peft beside the stored weights, which never change; several act at once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stillmotion.errors import FileError, MismatchError
from stillmotion.motion.lora import AppliedLora, LoraAdapter
from stillmotion.t2i.lora_names import Update, read_updates
from stillmotion.t2i.lycoris import changes, shape_of
from stillmotion.t2i.models import T2I
from stillmotion.t2i.original_names import unet_layers
from stillmotion.t2i.reading import read_tensors
from stillmotion.t2i.retuning import Tuning

TEXT_WIDTH_XL = 2048
"""Of the text features that the UNet of Stable Diffusion XL attends to."""

FOLDER_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file of a LoRA's folder."""


class ImageLora:
    """A LoRA at work in an image model, until removed."""

    def __init__(self, t2i: T2I, path: Path, parts: Sequence[AppliedLora | Tuning], line: str) -> None:
        self._t2i, self._parts, self._line = t2i, list(parts), line
        self.path = path
        t2i.files[path] = "lora"
        t2i.report.append(line)

    @property
    def strength(self) -> float:
        """Return what the updates are multiplied by; 0 computes exactly what is computed without the LoRA."""
        return next((part.strength for part in self._parts if isinstance(part.strength, float)), 0.0)

    @strength.setter
    def strength(self, value: float) -> None:
        for part in self._parts:
            part.strength = value

    def remove(self) -> None:
        """Take the LoRA out again: the model is then what it was, bit for bit. Safe to call twice."""
        if not self._parts:
            return
        for part in self._parts:
            part.remove()
        self._parts.clear()
        self._t2i.report.remove(self._line)
        if self._line not in self._t2i.report:  # the same file may be applied twice
            del self._t2i.files[self.path]


def apply_lora(t2i: T2I, path: str | Path, strength: float = 1.0, *, partial: bool = False) -> ImageLora:
    """Apply a LoRA file to the UNet and the text encoders: W + strength · alpha/rank · up · down.

    Args:
        t2i: The image model; a line on what was applied is added to its report.
        path: A file in kohya's, diffusers' or peft's dialect, with linear and convolution layers, or diffusers' folder;
            also LyCORIS' LoHa, LoKr, LoCon and whole differences.
        strength: What the updates are multiplied by; may be negative.
        partial: Leave out, and report, what has no layer here or another size, instead of refusing the file.

    Returns:
        A handle that changes the strength and removes the LoRA.

    Raises:
        FileError: The file is missing, damaged or unsafe.
        MismatchError: It is no LoRA, one of another family, or not every update in it has its layer here; nothing was
            applied then.
    """
    file = _file(Path(path).expanduser())
    tensors, metadata = read_tensors(file)
    found = read_updates(tensors, metadata, str(file), partial=partial)
    roots = t2i.parts
    if not t2i.is_xl and any(update.part == "text_encoder_2" for update in found.updates):
        raise MismatchError(f"{file} is a LoRA of Stable Diffusion XL; it does not fit a Stable Diffusion 1.x model.")
    placed = {
        part: _placed(roots[part], part, [update for update in found.updates if update.part == part], file, partial)
        for part in sorted({update.part for update in found.updates}, reverse=True)
    }
    counts = {part: len(updates) for part, (updates, _) in placed.items()}
    if not any(counts.values()):
        raise MismatchError(f"{file}: none of its {len(found.updates)} updates fits this model.")
    applied: list[AppliedLora | Tuning] = []
    try:
        for part, (updates, _) in placed.items():
            applied += _applied(roots[part], updates, strength, file)
    except MismatchError:
        for lora in applied:
            lora.remove()
        raise
    reasons = Counter([*found.skipped.values(), *(why for _, skipped in placed.values() for why in skipped.values())])
    told = ", ".join(f"{part} {count}" for part, count in counts.items())
    skipped = "".join(f"; skipped {count} ({why})" for why, count in reasons.items())
    return ImageLora(t2i, file, applied, f"{file.name}: {sum(counts.values())} updates applied ({told}){skipped}")


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / FOLDER_FILE).is_file():
        raise FileError(f"{path} is a folder without {FOLDER_FILE}; give the LoRA's file.")
    return path / FOLDER_FILE


def _placed(
    root: nn.Module, part: str, updates: list[Update], file: Path, partial: bool
) -> tuple[dict[str, Update], dict[str, str]]:
    """Return the updates by the layers of `root`, and why others are left out; without `partial`, none may be."""
    layers = _layer_names(root, part)
    missing = [update for update in updates if update.layer not in layers]
    if missing and not partial:
        own = getattr(getattr(root, "config", None), "cross_attention_dim", None)
        wide = _is_sdxl(updates) and own != TEXT_WIDTH_XL
        raise MismatchError(
            f"{file}: {len(missing)} of {len(updates)} updates of the {part} have no layer in this model, first "
            f"{missing[0].layer}; "
            + ("it is a LoRA of Stable Diffusion XL." if wide else "it was made for another kind of model.")
        )
    placed = {layers[update.layer]: update for update in updates if update.layer in layers}
    misfit = {path: own for path, update in placed.items() if (own := _misfit(root, path, update))}
    if misfit and not partial:
        path, said = next(iter(misfit.items()))
        raise MismatchError(f"{file} updates {len(misfit)} layers by another size, first {path}: {said}.")
    skipped = dict.fromkeys((update.layer for update in missing), "no such layer here")
    skipped |= dict.fromkeys(misfit, "another size than the layer's")
    return {path: update for path, update in placed.items() if path not in misfit}, skipped


def _applied(root: nn.Module, updates: Mapping[str, Update], strength: float, file: Path) -> list[AppliedLora | Tuning]:
    """Put the updates to work: products of two matrices beside their layers, the others in the layers' place."""
    applied: list[AppliedLora | Tuning] = []
    special = {
        path: changes(update.factors, update.alpha, _plain_layer(root, path))
        for path, update in updates.items()
        if update.factors
    }
    products = {path: _factors(update) for path, update in updates.items() if not update.factors}
    if special:
        applied.append(Tuning(root, special, strength))
    if products:
        applied.append(AppliedLora(root, LoraAdapter(weights=products, name=file.name), strength))
    return applied


def _misfit(root: nn.Module, path: str, update: Update) -> str:
    """Return how an update differs in size from its layer; empty where it fits."""
    layer: Any = _plain_layer(root, path)
    if update.factors:
        shape = shape_of(update.factors, update.alpha, layer)
        return (
            "" if shape == tuple(layer.weight.shape) else f"by {shape}, but the layer has {tuple(layer.weight.shape)}"
        )
    down, up = update.down, update.up
    assert down is not None
    assert up is not None
    sizes = (up.shape[0], down.shape[1])
    fits = sizes == tuple(layer.weight.shape[:2]) and up.shape[1] == down.shape[0]
    return "" if fits else f"by {sizes}, but the layer has {tuple(layer.weight.shape)}"


def _plain_layer(root: nn.Module, path: str) -> nn.Module:
    """Return a layer as the model has it, out of what peft may have put around it."""
    layer = root.get_submodule(path)
    while isinstance(inner := getattr(layer, "base_layer", None), nn.Module):
        layer = inner
    return layer


def _layer_names(root: nn.Module, part: str) -> dict[str, str]:
    """Return the path of every layer by every name that files give it."""
    paths = [
        path
        for path, layer in root.named_modules()
        if ".lora_" not in path
        and not path.endswith(".base_layer")
        and isinstance(getattr(layer, "base_layer", layer), nn.Linear | nn.Conv2d)
    ]
    names = {path: path for path in paths}
    if part != "unet":  # transformers 5 took "text_model." away
        names |= {f"text_model.{path.removeprefix('text_model.')}": path for path in paths}
        names |= {path.removeprefix("text_model."): path for path in paths}
    else:
        names |= {original: path for path, original in unet_layers(root).items() if path in names}
    return names | {name.replace(".", "_"): path for name, path in names.items()}


def _factors(update: Update) -> tuple[Tensor, Tensor]:
    """Return (down, up) with alpha/rank in the latter; without an alpha the factor is 1."""
    assert update.down is not None
    assert update.up is not None
    rank = update.down.shape[0]
    scale = 1.0 if update.alpha is None else update.alpha / rank
    return update.down.float(), update.up.float() * scale


def _is_sdxl(updates: list[Update]) -> bool:
    """Return whether the text that the updates attend to has SDXL's width."""
    keys = [update.down for update in updates if update.down is not None and "attn2" in update.layer]
    return any(down.shape[1] == TEXT_WIDTH_XL for down in keys)
