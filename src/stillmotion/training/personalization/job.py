"""A personalisation as a job: pictures in, an iterator of what happens out, a style or a subject at the end."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from stillmotion.data import ClipRecipe, ClipSource, Quarantine, check_flip, contact_sheet
from stillmotion.devices import choose_device
from stillmotion.errors import Cancelled, ConfigError, FileError
from stillmotion.sampling import Denoiser, Diffusion
from stillmotion.seeding import derive, frame_noise
from stillmotion.t2i import T2I, load_t2i
from stillmotion.toyworld import weights_folder
from stillmotion.training.clips import Footage, Moments, TrainingClip, TrainingClips, from_clips
from stillmotion.training.denoising import StageObjective, Weighing
from stillmotion.training.events import Saved, TrainEvent
from stillmotion.training.personalization.config import PersonalizeConfig
from stillmotion.training.personalization.learning import Learning, learning
from stillmotion.training.personalization.methods import METHODS
from stillmotion.training.personalization.pictures import open_pictures
from stillmotion.training.personalization.priors import WithPrior, class_folder, draw_class
from stillmotion.training.personalization.sentences import sentences
from stillmotion.training.reading import Reader
from stillmotion.training.run_folder import check_same, claimed
from stillmotion.training.samples import keep_sample, latent_shape, sample_clip
from stillmotion.training.work import Work, autocast_of, first_step, model_parents, own_device, published
from stillmotion.training.world import World, joined

NUM_VALIDATION_PICTURES = 4
_SAMPLES_OF_A_PROMPT = 2


def personalize(
    config: PersonalizeConfig,
    *,
    progress: Callable[[TrainEvent], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[Path, ...]:
    """Learn a subject or a style, and return the files written; a run in the same folder goes on exactly where it stood.

    Args:
        config: By which method, from which pictures, and where to.
        progress: Called with every event.
        stop: Asked after each step; when it says True the state is saved and the run ends with `Cancelled`.

    Raises:
        ConfigError: A value is out of range, or the folder holds a run of another config.
        FileError: A file is missing, damaged or not what its field asks for, or the folder is in use.
        MismatchError: A rank or a dialect does not fit the model.
        NonFiniteLoss: The loss is not a number; the checkpoints before it are kept.
        Cancelled: `stop` said so.
    """
    for event in personalizing(config, stop=stop):
        if progress is not None:
            progress(event)
        if isinstance(event, Saved):
            return event.files
    raise Cancelled(f"Stopped. The state is kept in {config.output_dir}; start the same again to go on.")


def personalizing(config: PersonalizeConfig, *, stop: Callable[[], bool] | None = None) -> Iterator[TrainEvent]:
    """Check the job now, and return the iterator that does it; it ends early, without `Saved`, where `stop` says True."""
    config = METHODS[config.method].settled(config)
    device = choose_device(own_device(config.device))
    _captions(config, _opened(config, config.pictures, 8))
    if config.class_pictures is not None:
        _class_caption(config, _opened(config, config.class_pictures, 8))
    check_same(config)
    return _events(config, device, stop or (lambda: False))


def _events(config: PersonalizeConfig, device: torch.device, stop: Callable[[], bool]) -> Iterator[TrainEvent]:
    with joined(device) as world, claimed(config, world) as folder:
        t2i = load_t2i(weights_folder() if config.model == "toyworld" else config.model, vae=config.vae)
        t2i.require_sd1("training")
        t2i.to(device, getattr(torch, config.precision))
        width = config.width or t2i.native_size
        config = config.replace(width=width, height=config.height or width)
        drawn: Path | None = None
        if config.class_prompt is not None and config.class_pictures is None:
            drawn = class_folder(config, t2i, folder)
            if world.leads:
                yield from draw_class(config, t2i, drawn, stop)
            if world.any(stop()):
                return
            world.wait()
        with learning(config, t2i) as learnt:
            yield from PersonalRun(config, folder, t2i, learnt, world).work(drawn).events(stop)


class PersonalRun:
    """The run of one method: its pictures, its objective, and how its samples and files are made."""

    def __init__(self, config: PersonalizeConfig, folder: Path, t2i: T2I, learnt: Learning, world: World) -> None:
        self._config, self._folder, self._t2i, self._learnt, self._world = config, folder, t2i, learnt, world
        self._autocast = autocast_of(t2i, config.precision)

    def work(self, drawn: Path | None) -> Work:
        """Return the run, ready to begin; `drawn` is the folder of pictures that the model made of the class."""
        config, world = self._config, self._world
        assert config.width is not None  # settled
        assert config.num_steps is not None
        source = _opened(config, config.pictures, config.width)
        caption, notes = _captions(config, source)
        clips = self._clips(source, caption, "pictures")
        draw: Callable[[int], TrainingClip] = clips.__getitem__
        batch = config.batch_size
        if (given := str(drawn) if drawn is not None else config.class_pictures) is not None:
            others = open_pictures(given, seed=config.seed, size=config.width)
            prior = self._clips(others, _class_caption(config, others), "class pictures")
            draw, batch = WithPrior(clips, prior, config.prior_weight), 2 * batch
        steps = range(first_step(self._folder), config.num_steps)
        slots = world.slots(batch)
        reader = Reader(draw, config.num_workers, (step * batch + slot for step in steps for slot in slots))
        held = clips.held(NUM_VALIDATION_PICTURES)
        fingerprint = source.fingerprint()
        return Work(
            config=config,
            folder=self._folder,
            world=world,
            clips=clips,
            held=held,
            reader=reader,
            objective=self._objective(reader, batch),
            notes=notes,
            samples=lambda folder: self._samples(held, folder),
            write=lambda step: self._write(step, fingerprint),
        )

    def _clips(self, source: ClipSource, caption: str | Sequence[str] | None, what: str) -> TrainingClips:
        config, world = self._config, self._world
        assert config.width is not None  # settled
        assert config.height is not None
        recipe = ClipRecipe(
            num_frames=1,
            frame_stride=1,
            width=config.width,
            height=config.height,
            buckets=config.buckets,
            horizontal_flip=config.horizontal_flip,
        )
        said = [source.item(index).caption for index in range(len(source))] if caption is None else caption
        check_flip(recipe, [said] if isinstance(said, str) else said)
        file = self._folder / f"broken-{what.replace(' ', '-')}.jsonl"
        quarantine = Quarantine(len(source), None if world.rank else file)
        clips = TrainingClips(
            _remembered(from_clips(source, self._t2i, recipe)),
            recipe,
            seed=config.seed if what == "pictures" else derive(config.seed, what),
            scaling_factor=self._t2i.vae.config.scaling_factor,
            caption=caption,
            caption_dropout=config.caption_dropout,
            quarantine=quarantine,
        )
        if not clips.usable:
            raise FileError(quarantine.summary())
        return clips

    def _objective(self, reader: Reader, batch: int) -> StageObjective:
        config = self._config
        return StageObjective(
            module=self._learnt.module,
            denoiser=Denoiser(self._t2i.unet),
            diffusion=Diffusion.from_config(self._t2i.scheduler_config),
            fetch=reader.fetch,
            texts=self._learnt.texts,
            seed=config.seed,
            batch_size=batch,
            micro_batch_size=config.micro_batch_size or batch,
            weighing=Weighing(
                snr_gamma=config.snr_gamma, timestep_bias=config.timestep_bias, noise_offset=config.noise_offset
            ),
            autocast=self._autocast,
            world=self._world,
        )

    def _samples(self, held: Sequence[TrainingClip], folder: Path) -> Iterator[Path]:
        """Make two pictures of every prompt, always from the same noise, and one sheet of all."""
        config, t2i = self._config, self._t2i
        assert config.width is not None  # settled
        assert config.height is not None
        prompts = config.sample_prompts or tuple(dict.fromkeys(clip.caption for clip in held[:2]))
        shape = latent_shape(t2i, config.width, config.height)
        made = []
        for index in range(_SAMPLES_OF_A_PROMPT * len(prompts)):
            prompt = prompts[index // _SAMPLES_OF_A_PROMPT]
            noise = frame_noise(config.seed + index, range(1), shape)
            made.append(sample_clip(t2i, t2i.scheduler_config, prompt, noise, self._autocast))
            keep_sample(made[-1], folder, str(index))
        yield contact_sheet(np.concatenate(made), folder / "contact-sheet.png", columns=_SAMPLES_OF_A_PROMPT)

    def _write(self, step: int, fingerprint: str) -> tuple[Path, ...]:
        """Write what was learnt, with what it was learnt from; return the files and folders."""
        config = self._config
        if not self._world.leads:
            return ()
        told = {
            "step": step,
            "parents": model_parents(self._t2i),
            "pictures": fingerprint,
            "config": published(config),
        }
        metadata = {"training": json.dumps(told)}
        if config.trigger is not None:
            metadata["modelspec.trigger_phrase"] = config.trigger
        if config.licence:
            metadata |= {"license": config.licence, "modelspec.license": config.licence}
        return self._learnt.write(self._folder, metadata)


def _opened(config: PersonalizeConfig, said: str, size: int) -> ClipSource:
    return open_pictures(said, seed=config.seed, size=size, word=config.token)


def _captions(config: PersonalizeConfig, source: ClipSource) -> tuple[str | Sequence[str] | None, tuple[str, ...]]:
    """Return what stands in for the captions of the pictures, and what the user should know of it.

    Raises `ConfigError` where pictures have no caption and no prompt is given, or none of them says the new word.
    """
    if config.instance_prompt is not None:
        return config.instance_prompt, ()
    captions = [source.item(index).caption for index in range(len(source))]
    silent = sum(not caption.strip() for caption in captions)
    if config.token is not None and silent == len(captions):
        chosen = sentences(config.token, config.learns)
        return chosen, (f"no picture has a caption; {config.token} is put into {len(chosen)} sentences",)
    if silent:
        raise ConfigError(
            f"instance_prompt: missing; {silent} of {len(captions)} pictures have no caption: give one prompt for all, or a "
            f"text beside each"
        )
    if config.token is not None and (without := sum(config.token not in caption for caption in captions)):
        raise ConfigError(
            f"token: {without} of {len(captions)} captions do not say {config.token}, first {captions[0]!r}; write it into "
            f"them, or give an instance_prompt that says it"
        )
    return None, ()


def _class_caption(config: PersonalizeConfig, source: ClipSource) -> str | None:
    """Return the caption of all pictures of the class, or None where they have their own."""
    if config.class_prompt is not None:
        return config.class_prompt
    silent = sum(not source.item(index).caption.strip() for index in range(len(source)))
    if silent:
        raise ConfigError(f"class_prompt: missing; {silent} of {len(source)} pictures of the class have no caption")
    return None


def _remembered(footage: Footage) -> Footage:
    """Return pictures whose latents are computed once and kept: an SD picture's take 128 KB."""
    known: dict[tuple[int, bool], Moments] = {}

    def moments(index: int, frames: Sequence[int], mirrored: bool) -> Moments:
        if (index, mirrored) not in known:
            known[index, mirrored] = footage.moments(index, frames, mirrored)
        return known[index, mirrored]

    return Footage(footage.clips, moments)
