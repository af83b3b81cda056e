"""A LoRA of the image model as it is trained: over peft, in the UNet and perhaps the text encoder; and as files have it.

diffusers names the layer's own path, `unet.down_blocks.0.…attn1.to_q.lora_A.weight`, and alpha over rank is in `lora_B`.
kohya's has underscores, `lora_unet_down_blocks_0_…attn1_to_q.lora_down.weight`, with an `.alpha` beside; ComfyUI reads both.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillmotion.motion.lora import AppliedLora, LoraAdapter, new_adapter
from stillmotion.seeding import generator
from stillmotion.t2i import T2I
from stillmotion.training.subject import Factors

LAYERS = {
    "attention": r".*\.transformer_blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)",
    "transformer": r".*\.transformer_blocks\.\d+\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2))",
    "text_encoder": r".*layers\.\d+\.self_attn\.(q|k|v|out)_proj",
}
"""Linear layers that get a LoRA, as patterns of their paths."""

_KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te"}

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""(down, up) by the path of the layer."""


@dataclass(frozen=True)
class LoraAtWork:
    """A LoRA that is being trained."""

    parts: Mapping[str, AppliedLora]
    alpha: float
    module: Factors
    """Holds the factors of all parts."""

    def pairs(self) -> dict[str, Pairs]:
        """Return the factors as they stand, by part and layer."""
        found: dict[str, Pairs] = {}
        for part, applied in self.parts.items():
            values = {name: value.detach().cpu().float() for name, value in applied.parameters().items()}
            paths = [name.removesuffix(".down") for name in values if name.endswith(".down")]
            found[part] = {path: (values[f"{path}.down"], values[f"{path}.up"]) for path in paths}
        return found


@contextmanager
def new_lora(t2i: T2I, *, rank: int, alpha: float, seed: int, layers: str, text: bool) -> Iterator[LoraAtWork]:
    """Put an untrained LoRA into a model, which changes nothing yet; afterwards take it out.

    Raises `MismatchError` for a rank over the size of a layer.
    """
    roots: dict[str, nn.Module] = {"unet": t2i.unet, **({"text_encoder": t2i.text_encoder} if text else {})}
    patterns = {"unet": LAYERS[layers], "text_encoder": LAYERS["text_encoder"]}
    fresh = {}
    for part, root in roots.items():
        paths = [
            path
            for path, layer in root.named_modules()
            if isinstance(layer, nn.Linear) and re.fullmatch(patterns[part], path)
        ]
        fresh[part] = new_adapter(LoraAdapter, root, paths, rank, generator(seed, f"{part} factors"))
    with ExitStack() as stack:
        parts: dict[str, AppliedLora] = {}
        parameters: dict[str, nn.Parameter] = {}
        for part, root in roots.items():
            parts[part] = AppliedLora(root, fresh[part], strength=alpha / rank)
            stack.callback(parts[part].remove)
            for name, parameter in parts[part].parameters().items():
                parameter.data = parameter.data.float()  # whatever the frozen model computes in
                parameter.requires_grad_(True)
                parameters[f"{part}.{name}"] = parameter
        yield LoraAtWork(parts, alpha, Factors(parameters))


def lora_tensors(lora: LoraAtWork, dialect: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors of a file in diffusers' or kohya's dialect."""
    tensors: dict[str, Tensor] = {}
    for part, pairs in lora.pairs().items():
        for path, (down, up) in pairs.items():
            # The name that text encoders had before transformers 5, which is what files say.
            full = f"text_model.{path.removeprefix('text_model.')}" if part == "text_encoder" else path
            if dialect == "kohya":
                stem = f"{_KOHYA[part]}_{full.replace('.', '_')}"
                tensors |= {f"{stem}.lora_down.weight": down.to(dtype), f"{stem}.lora_up.weight": up.to(dtype)}
                tensors[f"{stem}.alpha"] = torch.tensor(lora.alpha, dtype=dtype)
            else:
                scaled = up * (lora.alpha / down.shape[0])
                tensors |= {
                    f"{part}.{full}.lora_A.weight": down.to(dtype),
                    f"{part}.{full}.lora_B.weight": scaled.to(dtype),
                }
    return tensors
