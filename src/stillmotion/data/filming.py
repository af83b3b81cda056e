"""Camera motion on files: a clip, a picture or a folder of both in, clips with that motion out."""

import shutil
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from stillmotion.data.camera import CameraConfig, Size, camera_path
from stillmotion.data.formats import FORMATS
from stillmotion.data.metadata import read_metadata
from stillmotion.data.reading import probe, read_clip, read_frames
from stillmotion.data.video import ClipWriter, WrittenClip, format_of
from stillmotion.data.warping import along_path
from stillmotion.errors import Cancelled, ConfigError, FileError, StillmotionError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CLIPS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".gif")

_SHORT_SIDE, _STILL_FPS = 512, 8.0

Frames = Iterator[UInt8[np.ndarray, "height width 3"]]


@dataclass(frozen=True, kw_only=True)
class Filming:
    """Frames of a clip are made."""

    source: Path
    done: int
    """Frames done of all clips together."""
    total: int
    """Frames of all clips together."""


@dataclass(frozen=True, kw_only=True)
class Filmed:
    """A clip is in place, its caption beside it if the source has one."""

    source: Path
    clip: WrittenClip


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A clip of the same job was there and stays."""

    source: Path
    path: Path


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A source of a folder was left out."""

    source: Path
    reason: str


class _SourceError(FileError):
    """A source cannot be filmed; others of its folder can."""


def film(
    config: CameraConfig, *, cancel: Callable[[], bool] | None = None
) -> Iterator[Filming | Filmed | Kept | Skipped]:
    """Make the clips of a job, and yield what happens; nothing is under its name until it is whole.

    What is there already stays unless `overwrite` is set; if it was not made by the same job, that is an error. In a
    folder a source that cannot be filmed is skipped and the others go on. Raises `FileError` and `ConfigError` at once
    for paths that cannot be, `FileError` where nothing can be written, `Cancelled` between frames once `cancel` returns
    true; what is finished is kept.
    """
    jobs = _plan(config)
    total = len(jobs) * config.num_frames
    finished = 0
    for index, (source, out) in enumerate(jobs):
        try:
            if not config.overwrite and out.exists():
                yield _kept(config, source, out)
                continue
            # Closed by us: an error's traceback would keep the generator, and with it the unfinished file, alive.
            with closing(_shoot(config, source, out)) as shots:
                for shot in shots:
                    if isinstance(shot, WrittenClip):
                        finished += 1
                        yield Filmed(source=source, clip=shot)
                        continue
                    yield Filming(source=source, done=index * config.num_frames + shot, total=total)
                    if cancel is not None and cancel():
                        raise Cancelled(f"{finished} of {len(jobs)} clips are finished and kept.")
        except _SourceError as error:
            if not config.source.is_dir():
                raise
            yield Skipped(source=source, reason=str(error))


def _plan(config: CameraConfig) -> list[tuple[Path, Path]]:
    """Return each source with the clip to write of it; raise for paths that cannot be."""
    sources, out = _sources(config.source), config.out
    many, names_a_file = config.source.is_dir(), bool(out.suffix) and not out.is_dir()
    if names_a_file and many and out.suffix.lower().removeprefix(".") in FORMATS:
        raise ConfigError(f"out: expected a folder for the clips of a folder, got the file name {out}")
    if names_a_file and not many:
        format_of(out)
        outs = [out]
    elif out.exists() and not out.is_dir():
        raise FileError(f"{out}: expected a folder to write to, but this is a file.")
    else:
        outs = [out / f"{source.name if source.is_dir() else source.stem}.mp4" for source in sources]
    taken: dict[Path, Path] = {}
    for source, made in zip(sources, outs, strict=True):
        if made in taken:
            raise FileError(f"{source}: would become {made}, and so would {taken[made]}; rename one of them.")
        if made.resolve() == source.resolve() or (many and out.resolve() == config.source.resolve()):
            raise ConfigError(f"out: {made} would lie among the sources; choose another place or name")
        taken[made] = source
    return list(zip(sources, outs, strict=True))


def _sources(path: Path) -> list[Path]:
    if not path.exists():
        raise FileError(f"{path}: there is no such file or folder.")
    if not path.is_dir():
        return [path]
    found = [item for item in sorted(path.iterdir()) if not item.name.startswith(".") and _is_source(item)]
    if not found:
        endings = ", ".join((*CLIPS, *PICTURES))
        raise FileError(f"{path}: expected clips or pictures ({endings}), but the folder holds none.")
    return found


def _is_source(item: Path) -> bool:
    if item.is_dir():
        return any(file.suffix.lower() in PICTURES for file in item.iterdir())
    return item.suffix.lower() in (*CLIPS, *PICTURES)


def _kept(config: CameraConfig, source: Path, out: Path) -> Kept:
    """Return that the clip stays, or raise if it is not of this job."""
    try:
        made = read_metadata(out).get("camera")
    except FileError:
        made = None
    wanted = _record(config, source)
    if isinstance(made, dict) and {key: made.get(key) for key in wanted} == wanted:
        return Kept(source=source, path=out)
    was = f"is {made.get('motion')} of {made.get('source')}" if isinstance(made, dict) else "was made otherwise"
    raise _SourceError(f"{out}: is there already and {was}; choose another --out, or replace it with --overwrite.")


def _record(config: CameraConfig, source: Path) -> dict[str, object]:
    """Return what a clip says of how it was made: what makes two jobs the same."""
    return {
        "motion": str(config.camera()),
        "easing": config.easing,
        "source": source.name,
        "num_frames": config.num_frames,
        "frame_stride": config.frame_stride,
        "asked_size": [config.height, config.width],
        "asked_fps": config.fps,
    }


def _shoot(config: CameraConfig, source: Path, out: Path) -> Generator[int | WrittenClip, None, None]:
    """Make one clip: yield the number of frames done after each, then the clip, in place."""
    motion = config.camera()
    with _blaming(source):
        frames, size, fps = _opened(config, source)
        target = _target_size(config, size)
        path = camera_path(motion, config.num_frames, size, target)
    record = {**_record(config, source), "source_size": list(size), "size": list(target)}
    with ClipWriter(out, config.fps or fps, metadata={"camera": record}) as writer:
        for count, frame in enumerate(_blamed(source, along_path(frames, path, target)), 1):
            writer.add(frame)
            yield count
        caption = _place_caption(config, source, out)
        try:
            clip = writer.finish()
        except FileError:
            if caption is not None:
                caption.unlink(missing_ok=True)
            raise
    yield clip


@contextmanager
def _blaming(source: Path) -> Iterator[None]:
    try:
        yield
    except StillmotionError as error:
        said = str(error)
        raise _SourceError(said if said.startswith(str(source)) else f"{source}: {said}.") from error


def _blamed(source: Path, frames: Frames) -> Frames:
    with _blaming(source):
        yield from frames


def _opened(config: CameraConfig, source: Path) -> tuple[Frames, Size, float]:
    """Return the frames to film, their size, and the rate that suits them."""
    still, fps = _picture(source), _STILL_FPS
    if still is None:
        info = probe(source)
        if info.num_frames == 1:
            still = read_clip(source)[0]
        elif info.fps:
            fps = info.fps / config.frame_stride
    frames = _taken(config, source) if still is None else repeat(still, config.num_frames)
    first = next(frames)
    return chain([first], frames), (first.shape[0], first.shape[1]), fps


def _picture(source: Path) -> UInt8[np.ndarray, "height width 3"] | None:
    """Return a picture as it is looked at; None for what is a clip, or no picture by its name."""
    if source.is_dir() or source.suffix.lower() not in PICTURES:
        return None
    try:
        with Image.open(source) as picture:
            # A phone's JPEG may hold a preview as a second picture (MPO); that makes it no animation.
            if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
                return None
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(f"{source}: expected a picture, but it cannot be read as one: {error}.") from error


def _taken(config: CameraConfig, source: Path) -> Frames:
    count = 0
    for frame in islice(read_frames(source), 0, (config.num_frames - 1) * config.frame_stride + 1, config.frame_stride):
        count += 1
        yield frame
    if count < config.num_frames:
        stride = f" at a stride of {config.frame_stride}" if config.frame_stride > 1 else ""
        raise FileError(
            f"{source}: {config.num_frames} frames are asked for, but it has {count}{stride}; ask for fewer (num_frames)"
            f"{' or a smaller frame_stride' if stride else ''}."
        )


def _target_size(config: CameraConfig, source: Size) -> Size:
    """Return the (height, width) asked for, what is left open from the source's shape, in steps of 8."""
    height, width = source
    if config.width and config.height:
        return config.height, config.width
    if config.width:
        scale = config.width / width
    elif config.height:
        scale = config.height / height
    else:
        scale = min(1.0, _SHORT_SIDE / min(source))
    steps = (max(16, int(side * scale + 0.5) // 8 * 8) for side in source)
    own_height, own_width = steps
    return config.height or own_height, config.width or own_width


def _place_caption(config: CameraConfig, source: Path, out: Path) -> Path | None:
    """Copy the source's caption beside the clip before the clip is there, and return the copy if it is new."""
    caption = source.with_suffix(".txt") if source.is_file() else source.with_name(f"{source.name}.txt")
    copy = out.with_suffix(".txt")
    there = copy.exists()
    if not caption.is_file() or (there and not config.overwrite):
        return None
    partial = copy.with_name(f".{copy.name}-{uuid.uuid4().hex[:8]}.partial")
    try:
        shutil.copyfile(caption, partial)
        partial.replace(copy)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FileError(f"{copy}: cannot be written: {error}.") from error
    return None if there else copy
