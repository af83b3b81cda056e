"""What a job says of every frame: prompts, negative prompts, guidance and strengths that travel over the clip."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stillmotion.errors import ConfigError
from stillmotion.sampling import Context, by_frame, curve

if TYPE_CHECKING:
    from stillmotion.animate.config import AnimateConfig

_LINE = re.compile(r"\s*(-?\d+)\s*:\s*(\S.*)")
CONTEXT_LENGTH = 16
"""Frames of a window by default: what motion modules were trained on."""


@dataclass(frozen=True)
class PromptBlock:
    """A prompt of several lines with frames in front, as the AnimateDiff extension of AUTOMATIC1111's web UI takes it."""

    head: str = ""
    """What stands before the first frame's line, and so before every text."""
    texts: Mapping[int, str] = field(default_factory=dict)
    """The texts by frame; none where the prompt is an ordinary one."""
    tail: str = ""
    """What stands after the last frame's line."""


def read_block(prompt: str, where: str) -> PromptBlock:
    """Return the parts of a prompt with lines such as `0: closed mouth`; an ordinary prompt has no texts by frame.

    A single line is such a block only if it begins with `0:`, since a prompt may be "2001: a space odyssey". Raises
    `ConfigError`, naming the line, where texts by frame are mixed with others or do not ascend.
    """
    lines = [line.strip() for line in prompt.splitlines() if line.strip()]
    keyed = [index for index, line in enumerate(lines) if _LINE.fullmatch(line)]
    if not keyed or (len(lines) == 1 and not lines[0].startswith("0")):
        return PromptBlock()
    first, last = keyed[0], keyed[-1]
    texts: dict[int, str] = {}
    for index in range(first, last + 1):
        found = _LINE.fullmatch(lines[index])
        if found is None:
            raise ConfigError(
                f"{where}: line {index + 1}, {lines[index]!r}: expected `frame: text`, as the lines around it; what every "
                f"frame shares stands before or after them"
            )
        if (frame := int(found[1])) in texts:
            raise ConfigError(f"{where}: line {index + 1}, {lines[index]!r}: frame {frame} is given twice")
        if frame >= 0 and any(before > frame for before in texts):
            raise ConfigError(f"{where}: line {index + 1}, {lines[index]!r}: expected frames that ascend")
        texts[frame] = found[2]
    return PromptBlock(", ".join(lines[:first]), texts, ", ".join(lines[last + 1 :]))


def prompts_of(config: "AnimateConfig") -> dict[int, str]:
    """Return the whole text at every key frame, in their order; a prompt that does not travel stands at frame 0."""
    keyed, block = _keyed(config.prompt, config.prompt_map, config.num_frames, "prompt")
    return {
        frame: joined(config.head_prompt, block.head, text, block.tail, config.tail_prompt)
        for frame, text in keyed.items()
    }


def negatives_of(config: "AnimateConfig") -> dict[int, str]:
    """Return the negative prompts in the same way."""
    keyed, block = _keyed(config.negative_prompt, config.negative_map, config.num_frames, "negative_prompt")
    return {frame: joined(block.head, text, block.tail) for frame, text in keyed.items()}


def joined(*parts: str) -> str:
    """Return parts of a prompt with one comma between them; a single part is left as it is."""
    given = [part for part in parts if part.strip()]
    return given[0] if len(given) == 1 else ", ".join(part.strip(" ,\n") for part in given)


def first_words(config: "AnimateConfig") -> str:
    """Return what the clip begins with, in its own words."""
    block = read_block(config.prompt, "prompt")
    return next(iter(block.texts.values()), config.prompt)


def along(config: "AnimateConfig", value: float | Mapping[int, float], where: str) -> float | tuple[float, ...]:
    """Return a value that holds for the clip, or its values at every frame."""
    if isinstance(value, Mapping):
        return curve(value, config.num_frames, where, closed=config.loop == "closed")
    return value


def lora_curves(config: "AnimateConfig") -> tuple[float | tuple[float, ...], ...]:
    """Return each MotionLoRA's strength, or its strengths at every frame of the clip."""
    given = config.motion_lora_strengths or (1.0,) * len(config.motion_loras)
    if len(given) != len(config.motion_loras):
        raise ConfigError(
            f"motion_lora_strengths: expected one for each of {len(config.motion_loras)} motion_loras, got {len(given)}"
        )
    found = []
    for index, (value, lora) in enumerate(zip(given, config.motion_loras, strict=True)):
        strength = along(config, value, f"motion_lora_strengths.{index}")
        own = lora.strength
        found.append(tuple(own * x for x in strength) if isinstance(strength, tuple) else own * strength)
    return tuple(found)


def context_of(config: "AnimateConfig") -> Context:
    """Return the windows of a job: over the clip, or within the motion modules where `context` is `inside`."""
    closed, inside = config.loop == "closed", config.context == "inside"
    length = config.context_length or CONTEXT_LENGTH
    overlap = config.context_overlap
    if inside and overlap is None:
        overlap = length - max(1, length // 4)  # FreeNoise's: attention alone is cheap
    schedule = config.context if config.context and config.context != "inside" else "looped" if closed else "static"
    return Context(
        schedule=schedule,
        length=length,
        overlap=overlap,
        dilation=config.context_dilation,
        fusion=config.context_fusion,
        closed=closed,
    )


def check_script(config: "AnimateConfig") -> None:
    """Raise `ConfigError`, naming the field and the frame, for anything that cannot travel over the clip."""
    problems = []
    for part in (prompts_of, negatives_of, lora_curves, context_of, _check_values):
        try:
            part(config)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


def _check_values(config: "AnimateConfig") -> None:
    for name in ("guidance_scale", "motion_strength"):
        if isinstance(value := getattr(config, name), Mapping):
            along(config, value, name)


def _keyed(prompt: str, given: Mapping[int, str], num_frames: int, where: str) -> tuple[dict[int, str], PromptBlock]:
    """Return the texts by frame in their order, and the block that they stand in."""
    block, name = read_block(prompt, where), where.removesuffix("_prompt") + "_map"
    if block.texts:
        if given:
            raise ConfigError(f"{name}: the {where} has lines with frames already; give one of them")
        return by_frame(block.texts, num_frames, where), block
    ordered = by_frame(given, num_frames, name) if given else {}
    if prompt.strip() and ordered.get(0, prompt) != prompt:
        raise ConfigError(f"{name}.0: the {where} is what frame 0 shows, and this is another text; give one of them")
    return dict(sorted(({0: prompt} | ordered).items())), block
