"""The names of a LoRA's tensors in each dialect, read into pairs (down, up) per target and written back.

A target is the diffusers path of the linear layer that the LoRA changes, as
`down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q` (MotionLoRA, paper §4.3) or
`down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q` (domain adapter, paper §4.1). For the first, files say

    reference        …temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora.down.weight
    MotionDirector   …temporal_transformer.transformer_blocks.0.attention_blocks.0.to_out.processor.0_lora.down.weight
                     …temporal_transformer.transformer_blocks.0.ff.net.0.processor.proj_lora.{down,up}.weight
                     …temporal_transformer.transformer_blocks.0.ff.net.processor.2_lora.{down,up}.weight
    diffusers, old   unet.…transformer_blocks.0.attn1.processor.to_q_lora.{down,up}.weight
    diffusers, peft  unet.…transformer_blocks.0.attn1.to_q.lora_{A,B}.weight        or .lora.{down,up}.weight
    kohya            lora_unet_…_transformer_blocks_0_attn1_to_q.lora_{down,up}.weight, .alpha

All of them mean ΔW = up @ down, times alpha / rank where an alpha is stored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from stillmotion.checkpoints.motion_keys import SITE

_PAIR_KEY = re.compile(
    r"^(?P<stem>.+?)(?:"
    r"\.lora_(?P<letter>[AB]|down|up)(?:\.\w+)?\.weight"
    r"|(?:_lora|\.lora|\.lora_linear_layer)?\.(?P<word>down|up)\.weight"
    r")$"
)
_ALPHA_KEY = re.compile(r"^(?P<stem>.+?)(?:_lora|\.lora)?\.alpha$")
_PREFIX = re.compile(r"^(?:module\.|base_model\.model\.|unet\.|lora_unet_)+")
_KOHYA_WORDS = re.compile(
    r"down_blocks|up_blocks|mid_block|motion_modules|temporal_transformer|transformer_blocks|attention_blocks"
    r"|to_[qkv]|to_out|proj_in|proj_out|[a-z0-9]+"
)
_ATTENTION_LAYER = r"attn\d+\.to_(?:[qkv]|out\.0)"
_MOTION_TARGET = re.compile(
    rf"^{SITE}\.(?:proj_in|proj_out|transformer_blocks\.\d+\.(?:{_ATTENTION_LAYER}|ff\.net\.0\.proj|ff\.net\.2))$"
)
_SPATIAL_TARGET = re.compile(
    rf"^(?:(?:down|up)_blocks\.\d+|mid_block)\.attentions\.\d+\.transformer_blocks\.\d+\.{_ATTENTION_LAYER}$"
)


@dataclass(frozen=True, kw_only=True)
class LoraTensors:
    """The LoRA found in a file, by target, and what else the file holds."""

    down: dict[str, Tensor] = field(default_factory=dict)
    """Per target the first matrix, shape (rank, in)."""

    up: dict[str, Tensor] = field(default_factory=dict)
    """Per target the second matrix, shape (out, rank)."""

    alpha: dict[str, Tensor] = field(default_factory=dict)
    """Per target its alpha, a single number, where the file stores one."""

    dialects: frozenset[str] = frozenset()
    """The dialects that the names belong to: "original", "motiondirector", "diffusers", "peft", "kohya"."""

    others: tuple[str, ...] = ()
    """Names that belong to no pair, such as those of a text encoder or of another kind of adapter."""

    @property
    def motion_targets(self) -> list[str]:
        """The targets in motion modules."""
        return [target for target in self.down if _MOTION_TARGET.match(target)]

    @property
    def spatial_targets(self) -> list[str]:
        """The targets in the attentions of a UNet's spatial transformers."""
        return [target for target in self.down if _SPATIAL_TARGET.match(target)]

    @property
    def all_spatial(self) -> bool:
        """Whether all it changes are attentions of a UNet's spatial transformers, as a domain adapter does."""
        return bool(self.down) and len(self.spatial_targets) == len(self.down) and not self.others

    @property
    def unpaired(self) -> list[str]:
        """The targets with one matrix of two, and those with an alpha alone."""
        return sorted((self.down.keys() ^ self.up.keys()) | (self.alpha.keys() - self.down.keys()))

    @property
    def rank(self) -> int | None:
        """The largest rank, or None without a pair."""
        return max((tensor.shape[0] for tensor in self.down.values() if tensor.ndim), default=None)


def find_lora(tensors: Mapping[str, Tensor]) -> LoraTensors:
    """Return the LoRA among `tensors`, in whatever dialect; names of a text encoder stay among the others."""
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    alpha: dict[str, Tensor] = {}
    dialects: set[str] = set()
    others: list[str] = []
    for name, tensor in tensors.items():
        pair, scale = _PAIR_KEY.match(name), _ALPHA_KEY.match(name)
        match = pair or scale
        target = _target(match["stem"]) if match else None
        if match is None or target is None:
            others.append(name)
        elif pair:
            (down if (pair["letter"] or pair["word"]) in ("A", "down") else up)[target] = tensor
            dialects.add(_dialect(name, pair["stem"]))
        else:
            alpha[target] = tensor
    return LoraTensors(down=down, up=up, alpha=alpha, dialects=frozenset(dialects), others=tuple(others))


def original_lora_stem(target: str) -> str:
    """Return the reference implementation's name for `target`, without `.down.weight`.

    The feed-forward layers, which the reference never trained, are named as MotionDirector does: the reference's loader
    resolves those names.
    """
    site = re.match(SITE, target)
    if site:
        target = re.sub(r"\.attn(\d+)\.", lambda match: f".attention_blocks.{int(match[1]) - 1}.", target)
        target = f"{site[0]}.temporal_transformer{target[site.end() :]}"
    target = re.sub(r"\.to_out\.0$", ".to_out", target)
    parent, _, layer = target.rpartition(".")
    return f"{parent}.processor.{layer}_lora"


def _target(stem: str) -> str | None:
    """Return the diffusers path of the layer that a name means, or None if it is outside the UNet."""
    prefix = _PREFIX.match(stem)
    path = stem[prefix.end() :] if prefix else stem
    if prefix and prefix[0].endswith("lora_unet_"):
        path = ".".join(_KOHYA_WORDS.findall(path))
    if path.startswith(("lora_te", "text_encoder", "te.", "te1.", "te2.")):
        return None
    path = path.replace("processor.", "")
    path = re.sub(r"\.attention_blocks\.(\d+)\.", lambda match: f".attn{int(match[1]) + 1}.", path)
    path = path.replace(".temporal_transformer.", ".")
    return f"{path}.0" if path.endswith(".to_out") else path


def _dialect(name: str, stem: str) -> str:
    if stem.startswith("lora_unet_"):
        return "kohya"
    if ".lora_A." in name or ".lora_B." in name or ".lora." in name:
        return "peft"
    if stem.startswith("unet.") or (".attn" in stem and ".motion_modules." in stem):
        return "diffusers"
    if ".to_out.processor." in stem or ".ff.net." in stem:
        return "motiondirector"
    return "original"
