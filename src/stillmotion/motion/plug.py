"""Where motion sits in an image UNet, and how it gets in and out.

Forward hooks on an unmodified `UNet2DConditionModel`: after each spatial transformer, after the ResNet in blocks
without attention, and in the mid block where the variant has one. While plugged, the modules are registered as
`block.motion_modules`, so that `.to()`, offloading and peft reach them; unplugged, no trace is left.
"""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stillmotion.errors import MismatchError
from stillmotion.motion.frames import Curve, FrameCount
from stillmotion.motion.lora import AppliedLora, LoraAdapter, MotionLora
from stillmotion.motion.module import MotionModule, TemporalBlock
from stillmotion.motion.pooling import pool_over_frames
from stillmotion.motion.site import MotionSite


def hosts(unet: UNet2DConditionModel | ControlNetModel) -> Iterator[tuple[str, nn.Module]]:
    """Yield every site of a UNet as (name of its motion module, the layer whose output it takes), in forward order.

    An encoder without a way up, such as a ControlNet's, has the sites of its way down and in the middle.
    """
    mid = [("mid_block", unet.mid_block)] if getattr(unet.mid_block, "attentions", None) else []
    down = [(f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)]
    up = [(f"up_blocks.{i}", block) for i, block in enumerate(getattr(unet, "up_blocks", ()))]
    for name, block in (*down, *mid, *up):
        layers = getattr(block, "attentions", None) or block.resnets
        for index, layer in enumerate(layers):
            yield f"{name}.motion_modules.{index}", layer


def host_channels(layer: nn.Module) -> int:
    """Return the channels of a host's output: a spatial transformer's or a ResNet's."""
    return int(getattr(layer, "out_channels", None) or layer.in_channels)  # type: ignore[arg-type]


def plug(unet: nn.Module, motion: MotionModule, num_frames: int) -> "Plugged":
    """Plug `motion` into `unet`, whose batches are from now on clips of `num_frames` adjacent frames.

    Copies nothing. Use the result as a context manager, or call its `unplug()`. Raises `MismatchError`, leaving the UNet
    as it was, if the two do not fit, the UNet has motion already, or the module has fewer positions than `num_frames`.
    """
    return Plugged(_checked(unet, motion, num_frames), motion, FrameCount(num_frames))


class Plugged:
    """A UNet with motion in it. `num_frames` may be set between forwards."""

    def __init__(self, unet: UNet2DConditionModel, motion: MotionModule, frames: FrameCount) -> None:
        self.unet, self.motion = unet, motion
        self._frames = frames
        self._handles: list[RemovableHandle] = []
        self._blocks: list[nn.Module] = []
        self._loras: dict[int, AppliedLora] = {}
        sites = motion.sites()
        for block in self._attending():
            block.frames = frames
        for name, layer in hosts(unet):
            if name in sites:
                self._handles.append(layer.register_forward_hook(motion_hook(sites[name], frames)))
        for block_name in dict.fromkeys(name.rsplit(".motion_modules", 1)[0] for name in sites):
            block = unet.get_submodule(block_name)
            block.motion_modules = motion.get_submodule(block_name).motion_modules
            self._blocks.append(block)
        if motion.variant.spatial_norm == "across_frames":
            self._handles += pool_over_frames(unet, frames)

    @property
    def num_frames(self) -> int:
        """Return the frames of a clip."""
        return self._frames.num_frames

    @num_frames.setter
    def num_frames(self, count: int) -> None:
        _check_frames(self.motion, count)
        self._frames.num_frames, self._frames.shown, self._frames.windows = count, None, ()

    @property
    def motion_strength(self) -> Curve:
        """Return how much of the motion is added: 1 as trained, 0 the image model."""
        return self._frames.strength

    @motion_strength.setter
    def motion_strength(self, strength: int | float | Sequence[float]) -> None:
        self._frames.strength = _curve(strength)

    def look(self, frames: Sequence[int]) -> None:
        """Say which frames of a long clip the next forward is for, in order: strengths given per frame go by it.

        Sets `num_frames`, too. Raises `MismatchError` for more frames than the module has positions, unless attention goes
        by windows (`attend_within`) of all these frames.
        """
        if not self._frames.windows:
            _check_frames(self.motion, len(frames))
        self._frames.look(frames)

    def attend_within(self, windows: Sequence[tuple[Sequence[int], Sequence[float]]]) -> None:
        """Let all frames of a clip be seen at once, each attention looking through windows of them.

        Args:
            windows: Each as (numbers of frames, weights); the weights of a frame sum to one. The clip has as many frames
                as they cover. None at all, or one of the whole clip, is the ordinary attention.

        Raises:
            MismatchError: A window has more frames than the module has positions, or a frame is in no window.
        """
        covered = sorted({frame for frames, _ in windows for frame in frames})
        if covered != list(range(len(covered))):
            raise MismatchError(f"The windows leave out frames: {len(covered)} are covered, up to {covered[-1]}.")
        for frames, _ in windows:
            _check_frames(self.motion, len(frames))
        plain = len(windows) <= 1 and all(list(frames) == covered for frames, _ in windows)
        self._frames.windows = () if plain else tuple((tuple(f), tuple(w)) for f, w in windows)
        self._frames.shown, self._frames.part = None, None
        self._frames.num_frames = len(covered) or self._frames.num_frames

    def add(self, adapter: LoraAdapter, strength: int | float | Sequence[float] = 1.0) -> None:
        """Add a MotionLoRA to the motion module or a domain adapter to the UNet: W + strength · up · down.

        A MotionLoRA may have a strength of its own for each frame of the clip. Stored weights stay as they are. Raises
        `MismatchError` if a layer is missing or of another size, or if the motion module has no attention for a MotionLoRA
        to update.
        """
        if id(adapter) in self._loras:
            raise MismatchError(f"{adapter} is added already; change it by `set_strength`.")
        if isinstance(adapter, MotionLora):
            self.motion.require_attention()
        self._loras[id(adapter)] = AppliedLora(self.unet, adapter, _curve(strength), self._frames)

    def set_strength(self, adapter: LoraAdapter, strength: int | float | Sequence[float]) -> None:
        """Change the strength of an added adapter; 0 computes exactly what is computed without it."""
        self._applied(adapter).strength = _curve(strength)

    def remove(self, adapter: LoraAdapter) -> None:
        """Take an added adapter out again."""
        self._applied(adapter).remove()
        del self._loras[id(adapter)]

    def _applied(self, adapter: LoraAdapter) -> AppliedLora:
        if id(adapter) not in self._loras:
            raise MismatchError(f"{adapter} is not added here; `add` it first.")
        return self._loras[id(adapter)]

    def unplug(self) -> None:
        """Take motion and its adapters out; the UNet is then what it was, bit for bit. Safe to call twice."""
        for lora in reversed(self._loras.values()):
            lora.remove()
        self._loras.clear()
        for handle in self._handles:
            handle.remove()
        for block in self._blocks:
            del block.motion_modules
        for block in self._attending():
            if block.frames is self._frames:
                block.frames = None
        self._handles, self._blocks = [], []

    def _attending(self) -> Iterator[TemporalBlock]:
        return (module for module in self.motion.modules() if isinstance(module, TemporalBlock))

    def __enter__(self) -> "Plugged":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unplug()


def _checked(unet: nn.Module, motion: MotionModule, num_frames: int) -> UNet2DConditionModel:
    """Return the UNet if the module fits it; raise `MismatchError` saying what does not."""
    if not isinstance(unet, UNet2DConditionModel):
        raise MismatchError(f"Expected a diffusers UNet2DConditionModel to plug into, got {type(unet).__name__}.")
    if any(hasattr(block, "motion_modules") for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks)):
        raise MismatchError("This UNet has a motion module plugged in already; unplug it first.")
    _check_frames(motion, num_frames)
    wanted = motion.geometry.sites()
    found = {name: host_channels(layer) for name, layer in hosts(unet)}
    if unfit := [name for name, channels in wanted.items() if found.get(name) != channels]:
        module = f"{motion.variant.name} module of widths {motion.geometry.block_out_channels}"
        host = f"UNet of widths {tuple(unet.config.block_out_channels)}"
        raise MismatchError(
            f"The {module} ({motion.variant.family}) does not fit the {host}: {len(unfit)} of {len(wanted)} sites have no "
            f"host of their size, first {unfit[0]}. Use a module made for this kind of model."
        )
    unused = [name for name in found if name not in wanted and not name.startswith("mid_block")]
    if unused:
        raise MismatchError(
            f"The {motion.variant.name} module leaves {len(unused)} layers of this UNet still, first {unused[0]}: it was "
            f"made for a UNet of {len(motion.geometry.block_out_channels)} levels of {motion.geometry.layers_per_block} layers."
        )
    return unet


def _check_frames(motion: MotionModule, num_frames: int) -> None:
    if num_frames < 1:
        raise MismatchError(f"num_frames is {num_frames}, expected 1 or more.")
    if motion.max_frames is not None and num_frames > motion.max_frames:
        raise MismatchError(
            f"num_frames is {num_frames}, but this {motion.variant.name} module has positions for 1 to "
            f"{motion.max_frames} frames."
        )


def motion_hook(site: MotionSite, frames: FrameCount) -> Any:
    """Return the forward hook of a host that passes the host's output on through `site`."""

    def move(layer: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
        features = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        if features.shape[0] % frames.num_frames:
            raise MismatchError(
                f"A batch of {features.shape[0]} images does not divide into clips of {frames.num_frames}."
            )
        strength = frames.pick(frames.strength)
        if strength == 0:
            return output
        # A ResNet host recomputes this hook within its own checkpoint; a transformer host does not, and says so itself.
        site.gradient_checkpointing = getattr(layer, "gradient_checkpointing", False)
        moved = site(features, frames.num_frames)
        if strength != 1:
            moved = features + _along(frames, strength, features) * (moved - features)
        if isinstance(output, tuple):
            return (moved, *output[1:])
        return moved if output is features else type(output)(sample=moved)

    return move


def _along(frames: FrameCount, strength: Curve, features: Tensor) -> float | Tensor:
    """Return what each image's motion is multiplied by."""
    if isinstance(strength, float):
        return strength
    return frames.along(strength, features).repeat(features.shape[0] // frames.num_frames).view(-1, 1, 1, 1)


def _curve(strength: int | float | Sequence[float]) -> Curve:
    if isinstance(strength, int | float):
        return float(strength)
    values = tuple(float(value) for value in strength)
    return values[0] if len(set(values)) == 1 else values
