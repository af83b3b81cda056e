"""LoRAs of the image model: a style, a character, learnt as low-rank updates of the UNet and the text encoder.

They act over peft beside the stored weights, which never change; several act at once.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from stillmotion.errors import FileError, MismatchError
from stillmotion.motion.lora import AppliedLora, LoraAdapter
from stillmotion.t2i.lora_names import Update, read_updates
from stillmotion.t2i.models import T2I
from stillmotion.t2i.original_names import unet_layers
from stillmotion.t2i.reading import read_tensors

FOLDER_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file of a LoRA's folder."""


class ImageLora:
    """A LoRA at work in an image model, until removed."""

    def __init__(self, t2i: T2I, path: Path, parts: Mapping[str, AppliedLora], line: str) -> None:
        self._t2i, self._parts, self._line = t2i, dict(parts), line
        self.path = path
        t2i.files[path] = "lora"
        t2i.report.append(line)

    @property
    def strength(self) -> float:
        """Return what the updates are multiplied by; 0 computes exactly what is computed without the LoRA."""
        return next((part.strength for part in self._parts.values()), 0.0)

    @strength.setter
    def strength(self, value: float) -> None:
        for part in self._parts.values():
            part.strength = value

    def remove(self) -> None:
        """Take the LoRA out again: the model is then what it was, bit for bit. Safe to call twice."""
        if not self._parts:
            return
        for part in self._parts.values():
            part.remove()
        self._parts.clear()
        self._t2i.report.remove(self._line)
        if self._line not in self._t2i.report:  # the same file may be applied twice
            del self._t2i.files[self.path]


def apply_lora(t2i: T2I, path: str | Path, strength: float = 1.0) -> ImageLora:
    """Apply a LoRA file to the UNet and the text encoder: W + strength · alpha/rank · up · down.

    Args:
        t2i: The image model; a line on what was applied is added to its report.
        path: A file in kohya's, diffusers' or peft's dialect, with linear and convolution layers, or diffusers' folder.
        strength: What the updates are multiplied by; may be negative.

    Returns:
        A handle that changes the strength and removes the LoRA.

    Raises:
        FileError: The file is missing, damaged or unsafe.
        MismatchError: It is no LoRA, one of another family, or not every update in it has its layer here; nothing was
            applied then.
    """
    file = _file(Path(path).expanduser())
    tensors, metadata = read_tensors(file)
    found = read_updates(tensors, metadata, str(file))
    roots: dict[str, nn.Module] = {"unet": t2i.unet, "text_encoder": t2i.text_encoder}
    adapters = {
        part: _adapter(roots[part], part, [update for update in found.updates if update.part == part], file)
        for part in sorted({update.part for update in found.updates}, reverse=True)
    }
    applied: dict[str, AppliedLora] = {}
    try:
        for part, adapter in adapters.items():
            applied[part] = AppliedLora(roots[part], adapter, strength)
    except MismatchError:
        for lora in applied.values():
            lora.remove()
        raise
    counts = ", ".join(f"{part} {len(adapter.weights)}" for part, adapter in adapters.items())
    skipped = "".join(f"; skipped {count} ({why})" for why, count in Counter(found.skipped.values()).items())
    return ImageLora(t2i, file, applied, f"{file.name}: {len(found.updates)} updates applied ({counts}){skipped}")


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / FOLDER_FILE).is_file():
        raise FileError(f"{path} is a folder without {FOLDER_FILE}; give the LoRA's file.")
    return path / FOLDER_FILE


def _adapter(root: nn.Module, part: str, updates: list[Update], file: Path) -> LoraAdapter:
    """Return the updates by the layers of `root`, their alphas folded in; every one must have its layer."""
    layers = _layer_names(root, part)
    missing = [update for update in updates if update.layer not in layers]
    if missing:
        wide = _is_sdxl(updates)
        raise MismatchError(
            f"{file}: {len(missing)} of {len(updates)} updates of the {part} have no layer in this model, first "
            f"{missing[0].layer}; "
            + ("it is a LoRA of Stable Diffusion XL." if wide else "it was made for another kind of model.")
        )
    return LoraAdapter(weights={layers[update.layer]: _factors(update) for update in updates}, name=file.name)


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
    if part == "text_encoder":  # transformers 5 took "text_model." away
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
    return any(down.shape[1] == 2048 for down in keys)
