"""The job itself: models loaded, motion plugged in, and clip after clip made."""

import functools
from collections.abc import Callable, Iterator

import torch

from stillmotion.animate.clip import Clip
from stillmotion.animate.clip_sampling import FramesInView
from stillmotion.animate.clip_work import ClipWork, Clock, frames_at_once
from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.events import Cancel, Event, Finished, Loaded, Started
from stillmotion.animate.guidance import guidance_of
from stillmotion.animate.plan import Plan, make_plan
from stillmotion.animate.record import begin
from stillmotion.animate.script import context_of
from stillmotion.animate.second_pass import Told, sample_whole
from stillmotion.animate.session import Session
from stillmotion.animate.steering import steer
from stillmotion.animate.unfinished import Unfinished
from stillmotion.animate.upscaling import larger, notes_on_size
from stillmotion.devices import device_name
from stillmotion.errors import ConfigError, StillmotionError
from stillmotion.sampling import Guidance
from stillmotion.t2i import T2I


def animate(
    config: AnimateConfig,
    *,
    progress: Callable[[Event], None] | None = None,
    cancel: Cancel | None = None,
    session: Session | None = None,
) -> Clip:
    """Make one clip and return it; with `config.output_dir` it is also written into a run folder there.

    Args:
        config: What to make. `num_clips` must be 1; `animation` makes several.
        progress: Called with every event.
        cancel: Asked between steps and between chunks of frames; when it says True the job ends with `Cancelled`.
        session: Keeps the models loaded for the next job; without it they are let go.

    Raises:
        ConfigError: A value is out of range or names nothing that exists.
        FileError: A file is missing, damaged, not what its field asks for, or the output cannot be written.
        MismatchError: Two parts do not fit.
        Cancelled: `cancel` said so. Nothing half-written is left, unless what it takes to go on (`config.state_every`).
    """
    if config.num_clips != 1:
        raise ConfigError(f"num_clips: sm.animate makes one clip, got {config.num_clips}; use sm.animation for several")
    for event in animation(config, cancel=cancel, session=session):
        if progress is not None:
            progress(event)
        if isinstance(event, Finished):
            return event.clip
    raise StillmotionError("The job ended without a clip.")


def animation(
    config: AnimateConfig,
    *,
    cancel: Cancel | None = None,
    session: Session | None = None,
    keep_frames: bool = True,
) -> Iterator[Event]:
    """Check the job now, and return the iterator that does it: `Started`, `Loaded`, then every clip's events.

    Clip i of `num_clips` has the seed `seed + i` and is the clip that this seed gives alone. Each is whole, in its own
    run folder, when its `Finished` comes; ending the iteration early keeps those, and of the one at work nothing but what
    it takes to go on with it (`plan_resume`), once the job has worked for `config.state_every` seconds.
    `keep_frames=False` keeps no pixels in memory, for long clips that are written. Arguments and errors as `animate`.
    """
    return run(make_plan(config), cancel=cancel, session=session, keep_frames=keep_frames)


def run(
    plan: Plan, *, cancel: Cancel | None = None, session: Session | None = None, keep_frames: bool = True
) -> Iterator[Event]:
    """Do what is planned; see `animation`."""
    if not keep_frames and plan.config.output_dir is None:
        raise ConfigError("output_dir: expected a folder, since the frames are not to be kept in memory")
    return _events(plan, cancel or _never, session, keep_frames)


def _events(plan: Plan, cancel: Cancel, session: Session | None, keep_frames: bool) -> Iterator[Event]:
    device = plan.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield Started(
        config=plan.config,
        device=str(device),
        device_name=device_name(device),
        dtype=str(plan.config.dtype),
        notes=plan.notes,
    )
    clock = Clock()
    with clock.phase("load"):
        models = (session or Session()).load(plan)
    config = models.settle(plan.config)
    window = min(config.num_frames, context_of(config).length)
    with models.assembled(window) as plugged:
        with clock.phase("inputs"):
            steered = steer(config, models.controls, plan.inputs.start, models.t2i, frames_at_once(config))
        with clock.phase("text"):
            first = Told(steered=steered, guidance=_guidance(config, models.t2i))
        size_notes = () if plan.config.width and plan.config.height else notes_on_size(config)  # else said already
        yield Loaded(config=config, seconds=clock.seconds["load"], notes=(*models.t2i.report, *size_notes))

        @functools.cache
        def second() -> Told:
            """Return what the second pass of every clip is told, read once one begins."""
            job = larger(config)
            return Told(
                steered=steer(job, models.controls, None, models.t2i, frames_at_once(job)),
                guidance=_guidance(job, models.t2i),
            )

        unfinished = Unfinished(config, begin(config, models.files, device, models.t2i.report), plan.interrupted)
        with unfinished.kept():
            for index in range(unfinished.num_finished, config.num_clips):
                after = unfinished.begin()
                work = ClipWork(
                    # The clip's own config: replaying it gives this clip alone.
                    config=config.replace(seed=(config.seed or 0) + index, num_clips=1),
                    t2i=models.t2i,
                    files=models.files,
                    device=device,
                    clock=clock.fork(),
                    index=index,
                    num_clips=config.num_clips,
                    keep_frames=keep_frames,
                    record={"resumed_after_step": after.index} if after else {},
                )
                view = FramesInView(work.config, plugged)
                steps = sample_whole(work.config, models, first, second, view, cancel, after)
                for event in work.events(unfinished.watched(steps), cancel):
                    if isinstance(event, Finished):
                        unfinished.finished(event.clip.folder)
                    yield event


def _guidance(config: AnimateConfig, t2i: T2I) -> Guidance:
    told = {"clip_skip": config.clip_skip, "height": config.height or 0, "width": config.width or 0}
    return guidance_of(config, lambda texts: t2i.text(texts, **told))


def _never() -> bool:
    return False
