"""A clip made larger by a second pass, and smoother by frames in between: what that means in numbers, before it is done."""

from typing import TYPE_CHECKING

from stillmotion.errors import ConfigError

if TYPE_CHECKING:
    from stillmotion.animate.config import AnimateConfig

DENOISE = 0.5
"""The share of the steps that the second pass takes, where nothing is said."""

_MULTIPLE, _WIDEST, _FASTEST = 8, 8192, 240  # pixels, pixels, frames per second


def larger_size(config: "AnimateConfig") -> tuple[int, int] | None:
    """Return width and height of the clip as it is written; None where the size is not settled."""
    if config.width is None or config.height is None:
        return None
    if config.upscale == 1:
        return config.width, config.height
    width, height = (
        max(_MULTIPLE, _MULTIPLE * round(side * config.upscale / _MULTIPLE)) for side in (config.width, config.height)
    )
    return width, height


def larger(config: "AnimateConfig") -> "AnimateConfig":
    """Return the second pass of a settled job, as a job; where there is none, the job itself.

    It begins with the first pass's clip and noise of its own: its seed is drawn from the job's.
    """
    from stillmotion.seeding import derive  # noqa: PLC0415  # it needs torch, which a config does not

    size = larger_size(config)
    if config.upscale == 1 or size is None:
        return config
    width, height = size
    return config.replace(
        width=width,
        height=height,
        denoise=config.upscale_denoise,
        seed=derive(config.seed or 0, "upscale"),
        freeinit_passes=1,
        upscale=1.0,
        upscale_denoise=None,
    )


def second_denoise(config: "AnimateConfig") -> float | None:
    """Return the share of the steps that the second pass takes, at least one; None where there is no such pass.

    `config` has its steps settled. Raises `ConfigError` where a share that was given is none of them.
    """
    from stillmotion.sampling.start import steps_taken  # noqa: PLC0415  # it needs torch

    if config.upscale == 1:
        return None
    steps = config.num_inference_steps or 1
    share = max(DENOISE, 1 / steps) if config.upscale_denoise is None else config.upscale_denoise
    try:
        steps_taken(steps, share)
    except ConfigError as error:
        raise ConfigError(f"upscale_{error}") from error
    return share


def written_frames(config: "AnimateConfig") -> int:
    """Return how many frames the clip has as it is written."""
    return config.num_frames * config.interpolate


def written_fps(config: "AnimateConfig") -> float:
    """Return how many frames per second the clip plays at as it is written."""
    return config.fps * config.interpolate


def check_upscale(config: "AnimateConfig") -> None:
    """Raise `ConfigError` for a second pass that cannot be."""
    if config.upscale == 1 and config.upscale_denoise is not None:
        raise ConfigError("upscale_denoise: there is no second pass; give upscale too, such as 2")
    size = larger_size(config)
    if size is not None and max(size) > _WIDEST:
        raise ConfigError(
            f"upscale: {config.upscale:g} times {config.width}x{config.height} is {size[0]}x{size[1]}; expected at most "
            f"{_WIDEST} pixels a side"
        )


def check_between(config: "AnimateConfig") -> None:
    """Raise `ConfigError` for frames in between that cannot be."""
    if config.interpolate == 1:
        return
    if config.num_frames == 1:
        raise ConfigError("interpolate: a clip of one frame has nothing between frames; give num_frames 2 or more")
    if written_fps(config) > _FASTEST:
        raise ConfigError(
            f"interpolate: {config.interpolate} times {config.fps:g} fps is {written_fps(config):g} frames per second; "
            f"expected at most {_FASTEST}"
        )


def notes_on_size(config: "AnimateConfig") -> tuple[str, ...]:
    """Return what to say where the larger size is not the one that was asked for; nothing where no size is settled."""
    size = larger_size(config)
    if size is None or size == (asked := ((config.width or 0) * config.upscale, (config.height or 0) * config.upscale)):
        return ()
    return (f"upscale: {asked[0]:g}x{asked[1]:g} is rounded to {size[0]}x{size[1]}, multiples of {_MULTIPLE}",)
