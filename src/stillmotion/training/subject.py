"""What a stage trains, in place: the image model, what is plugged into it, and the parameters that move."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from stillmotion.checkpoints import load
from stillmotion.errors import MismatchError
from stillmotion.motion import DomainAdapter, MotionLora, MotionModule, plug
from stillmotion.motion.lora import AppliedLora, new_adapter
from stillmotion.seeding import derive, generator
from stillmotion.t2i import T2I
from stillmotion.toyworld import motion_file
from stillmotion.training.config import TrainConfig
from stillmotion.training.sharding import shard
from stillmotion.training.stages import Stage
from stillmotion.training.world import World


class Factors(nn.Module):
    """The factors of a LoRA under names that stay the same from run to run, whatever peft calls them."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name.replace(".", "/"), parameter)

    def adapter(self, kind: type[MotionLora] | type[DomainAdapter]) -> MotionLora | DomainAdapter:
        """Return the factors as an adapter of that kind."""
        values = {name.replace("/", "."): p.detach().cpu().clone() for name, p in self.named_parameters()}
        paths = [name.removesuffix(".down") for name in values if name.endswith(".down")]
        return kind(weights={path: (values[f"{path}.down"], values[f"{path}.up"]) for path in paths})


@dataclass(frozen=True)
class Subject:
    """An image model with everything in it that a stage computes with."""

    t2i: T2I
    module: nn.Module
    """Holds the parameters that are trained, all others need no gradient."""
    trained: Callable[[], MotionModule | MotionLora | DomainAdapter]
    """Returns what was trained, as it stands, to be written."""
    schedule: dict[str, object]
    """The noise schedule, in diffusers' words."""


def motion_source(config: TrainConfig) -> Path | None:
    """Return the motion module's file, if there is one to begin with; the toyworld brings its own for a MotionLoRA."""
    if config.motion is not None:
        return Path(config.motion).expanduser()
    return motion_file() if config.model == "toyworld" and config.stage == "motion_lora" else None


@contextmanager
def assembled(config: TrainConfig, stage: Stage, t2i: T2I, device: torch.device, world: World) -> Iterator[Subject]:
    """Plug in what the stage trains; afterwards the image model is what it was.

    Raises `FileError` or `MismatchError` where the motion module, or the domain adapter, cannot be read or does not fit.
    """
    dtype = getattr(torch, config.precision)
    t2i.to(device, dtype)
    schedule: dict[str, object] = dict(t2i.scheduler_config)
    with ExitStack() as stack:
        motion: MotionModule | None = None
        if stage.moves:
            motion = _motion(config, t2i)
            if stage.layers is not None:
                motion.require_attention()
            # What is trained is kept in float32, whatever the frozen models compute in.
            motion.to(device, torch.float32 if stage.layers is None else dtype)
            plugged = stack.enter_context(plug(t2i.unet, motion, config.num_frames))
            schedule |= motion.variant.noise_schedule.scheduler_kwargs()
            if config.domain_adapter and config.domain_adapter.strength:
                adapter = load(config.domain_adapter.path, expect=DomainAdapter)
                plugged.add(adapter, config.domain_adapter.strength)
        if config.gradient_checkpointing:
            t2i.unet.enable_gradient_checkpointing()
            stack.callback(t2i.unet.disable_gradient_checkpointing)
        if stage.layers is None:
            assert motion is not None
            motion.requires_grad_(requires_grad=True)
            if world.sharded:
                shard(motion, world, device)
            yield Subject(t2i, motion, lambda: motion, schedule)
            return
        kind = stage.kind
        assert kind is not None
        assert config.rank is not None
        fresh = new_adapter(kind, t2i.unet, stage.paths(t2i.unet), config.rank, generator(config.seed, "factors"))
        applied = AppliedLora(t2i.unet, fresh, strength=1.0)
        stack.callback(applied.remove)
        parameters = applied.parameters()
        for parameter in parameters.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        factors = Factors(parameters)
        yield Subject(t2i, factors, lambda: factors.adapter(kind), schedule)


def _motion(config: TrainConfig, t2i: T2I) -> MotionModule:
    """Return the motion module of the config's file, or a new one that fits the image model."""
    source = motion_source(config)
    if source is not None:
        found = load(source, expect=MotionModule, variant=config.variant)
        if config.architecture not in (None, found.architecture.name):
            raise MismatchError(
                f"architecture: {source} is a {found.architecture.name}, expected {config.architecture}"
            )
        return found.requires_grad_(requires_grad=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, "motion module"))
        unet = t2i.unet.config
        return MotionModule.from_variant(
            config.variant or "v3",
            architecture=config.architecture or "transformer",
            block_out_channels=unet.block_out_channels,
            layers_per_block=unet.layers_per_block,
        )
