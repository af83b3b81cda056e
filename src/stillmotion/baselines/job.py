"""A baseline as a job: config in, events and clips out, as `animate` gives them."""

from collections.abc import Callable, Iterator
from dataclasses import fields

import torch

from stillmotion.animate import Clip, Finished, Loaded, Session, Started
from stillmotion.animate.clip_work import ClipWork, Clock
from stillmotion.animate.events import Cancel
from stillmotion.animate.guidance import guidance_of
from stillmotion.animate.lessons import Lessons
from stillmotion.animate.plan import Plan, make_plan, require_writable
from stillmotion.baselines.config import BaselineConfig, TuneAVideoConfig
from stillmotion.baselines.events import BaselineEvent
from stillmotion.baselines.methods import method_of
from stillmotion.baselines.tuning import check_tuning, check_video
from stillmotion.devices import device_name
from stillmotion.errors import ConfigError, StillmotionError

_SHARED = tuple(field.name for field in fields(BaselineConfig))


def baseline(
    config: BaselineConfig,
    *,
    progress: Callable[[BaselineEvent], None] | None = None,
    cancel: Cancel | None = None,
    session: Session | None = None,
) -> Clip:
    """Make one clip by Text2Video-Zero or Tune-A-Video, as the config's class says, and return it.

    Arguments and errors are those of `animate`; a tuning that `cancel` stops is kept in `tuning_dir`.
    """
    if config.num_clips != 1:
        raise ConfigError(
            f"num_clips: sm.baseline makes one clip, got {config.num_clips}; use baselines.making for several"
        )
    for event in making(config, cancel=cancel, session=session):
        if progress is not None:
            progress(event)
        if isinstance(event, Finished):
            return event.clip
    raise StillmotionError("The job ended without a clip.")


def making(
    config: BaselineConfig,
    *,
    cancel: Cancel | None = None,
    session: Session | None = None,
    keep_frames: bool = True,
) -> Iterator[BaselineEvent]:
    """Check the job now, and return the iterator that does it; as `animation` does.

    Clip i has the seed `seed + i`; a tuning and its inversion are done once for all of them. What `session` keeps is the
    image model, which is as it was loaded between jobs.
    """
    plan = make_plan(config.as_animate(), with_motion=False)
    if not keep_frames and config.output_dir is None:
        raise ConfigError("output_dir: expected a folder, since the frames are not to be kept in memory")
    settled = _settled(config, plan)
    if isinstance(settled, TuneAVideoConfig):
        check_video(settled)
        if settled.tuning_dir is not None:
            require_writable(settled.tuning_dir)
        check_tuning(settled)
    return _events(settled, plan, cancel or (lambda: False), session or Session(), keep_frames)


def _settled(config: BaselineConfig, plan: Plan) -> BaselineConfig:
    """Return the job with what the plan settled: seed, guidance, device and dtype."""
    return config.replace(**{name: getattr(plan.config, name) for name in _SHARED})


def _events(
    config: BaselineConfig, plan: Plan, cancel: Cancel, session: Session, keep_frames: bool
) -> Iterator[BaselineEvent]:
    device = plan.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield Started(
        config=plan.config,
        device=str(device),
        device_name=device_name(device),
        dtype=config.dtype,
        notes=plan.notes,
    )
    clock = Clock()
    with clock.phase("load"):
        t2i, files = session.load_image_model(plan)
        t2i.require_sd1("a baseline")
    config = config.replace(width=config.width or t2i.native_size, height=config.height or t2i.native_size)
    told = config.as_animate()
    with Lessons.of(told).at_work(t2i):
        with clock.phase("text"):
            guidance = guidance_of(told, lambda texts: t2i.encode_text(texts, clip_skip=config.clip_skip))
        yield Loaded(config=told, seconds=clock.seconds["load"], notes=tuple(t2i.report))
        method = method_of(config, t2i)
        yield from method.prepared(clock, cancel)
        with method.at_work():
            for index in range(config.num_clips):
                own = config.replace(seed=(config.seed or 0) + index, num_clips=1)
                work = ClipWork(
                    config=own.as_animate(),
                    t2i=t2i,
                    files=(*files, *method.files()),
                    device=device,
                    clock=clock.fork(),
                    index=index,
                    num_clips=config.num_clips,
                    keep_frames=keep_frames,
                    record={"baseline": config.method, "config": own.to_dict()},
                )
                yield from work.events(method.steps(own.seed or 0, guidance, cancel), cancel)
