"""Pictures and videos that a job reads, for its controls and to begin with, settled before anything is loaded."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stillmotion.animate.config import STEPS, AnimateConfig
from stillmotion.animate.model_files import controls_of
from stillmotion.checkpoints import FileInfo
from stillmotion.config import ControlFile
from stillmotion.data import Footage, open_footage, require_canny
from stillmotion.data.conditions.pictures import Ground
from stillmotion.errors import ConfigError, StillmotionError
from stillmotion.sampling.start import steps_taken
from stillmotion.t2i.controls.ip_adapter import encoder_folder
from stillmotion.t2i.depth import check_depth_folder

DENOISE = 0.75
"""The share of the steps in which a video or picture is drawn anew, where nothing is said."""

SPARSE = "sparse_control"
"""The kind of file that a SparseCtrl is."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """Some frames of one source."""

    footage: Footage
    """The source."""
    places: tuple[int, ...]
    """Where they stand in it, ascending for a video."""


@dataclass(frozen=True, kw_only=True)
class PlannedControl:
    """A control that acts, with the pictures that it is set on."""

    role: str
    """`controls.0`: which one of the config's."""
    file: ControlFile
    """What the user said."""
    kind: str
    """What its file is."""
    shots: tuple[Shot, ...]
    """Its pictures, in order."""
    indices: tuple[int, ...] | None
    """The frames that the pictures are; None where they are all frames, or one picture for all."""
    ground: Ground = "black"
    """What shows through transparent pictures: white behind what they show, black, which is nothing, behind maps."""

    @property
    def depth_folder(self) -> str | None:
        """Return the folder of the depth model that the pictures go through, if they do."""
        kind, _, folder = self.file.preprocessor.partition(":")
        return folder if kind == "depth" else None


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where the frames begin, other than in noise: a video, or pictures between which they are blended."""

    video: Shot | None = None
    """Every frame of the clip."""
    first: Footage | None = None
    """The first frame's picture."""
    last: Footage | None = None
    """The last frame's."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What of pictures and videos a job reads."""

    controls: tuple[PlannedControl, ...] = ()
    """The controls that act; those of strength 0 are left out."""
    start: Start | None = None
    """Where the frames begin; None for noise alone."""
    denoise: float | None = None
    """The share of the steps that is taken from there; None where they begin in noise."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    read: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    """Every file and folder that is read, and what it is, by role: `image`, `video`, `controls.0.source`."""


def plan_inputs(config: AnimateConfig, files: Mapping[str, FileInfo]) -> Inputs:
    """Return what a job reads beside its models, `files` being what these are.

    Raises:
        ConfigError: A control has nothing to read, or a value does not go with the others.
        FileError: A source is missing, damaged, too short, or no picture or video.
    """
    own = {role: _opened(role, path) for role in ("image", "last_image", "video") if (path := getattr(config, role))}
    if config.last_image and config.image and config.num_frames == 1:
        raise ConfigError("last_image: a clip of one frame begins and ends with the same; leave it or image out")
    for role in ("image", "last_image"):
        if role in own and own[role].kind != "picture":
            raise ConfigError(f"{role}: {own[role].path} is a {own[role].kind}, expected a picture; give it as video")
    if "video" in own and own["video"].kind == "picture":
        raise ConfigError(f"video: {own['video'].path} is a picture, expected a video or a folder; give it as image")
    acting = [(role, control) for role, control in controls_of(config) if control.strength]
    taker = next((role for role, control in acting if _takes_pictures(control, files[role])), None)
    controls, read = [], {role: (footage.path, f"a {footage.kind}") for role, footage in own.items()}
    for role, control in acting:
        _check_options(role, control, files[role].kind)
        shots, indices = _pictures(role, control, files[role], own, config.num_frames)
        planned = PlannedControl(
            role=role,
            file=control,
            kind=files[role].kind,
            shots=shots,
            indices=indices,
            ground="white" if _sees_pictures(files[role]) else "black",
        )
        controls.append(planned)
        read |= _read_by(planned)
    start = _start(config, own, drawn=taker is None or (config.denoise is not None and not config.video))
    if start is None and config.denoise is not None:
        raise ConfigError("denoise: there is nothing to draw anew; give video or image too")
    # Of a single step the share is that step.
    steps = config.num_inference_steps or STEPS
    usual = max(DENOISE, 1 / steps)
    denoise = None if start is None else usual if config.denoise is None else config.denoise
    if denoise is not None:
        steps_taken(steps, denoise)
    return Inputs(controls=tuple(controls), start=start, denoise=denoise, notes=_notes(config, start, taker), read=read)


def _read_by(planned: PlannedControl) -> dict[str, tuple[Path, str]]:
    """Return what a control reads beside its own weights, and what that is, by role."""
    role, file, found = planned.role, planned.file, {}
    if file.source is not None:
        footage = planned.shots[0].footage
        found[f"{role}.source"] = (footage.path, f"a {footage.kind}")
    if planned.depth_folder is not None:
        found[f"{role}.preprocessor"] = (Path(planned.depth_folder), "a depth model")
    if planned.kind == "ip_adapter":
        encoder = encoder_folder(Path(file.path).expanduser(), file.image_encoder)
        found[f"{role}.image_encoder"] = (encoder, "an image encoder")
    return found


def _takes_pictures(control: ControlFile, info: FileInfo) -> bool:
    """Return whether a control is what `image` and `last_image` are for: a SparseCtrl RGB without a source."""
    return info.kind == SPARSE and _sees_pictures(info) and control.source is None


def _sees_pictures(info: FileInfo) -> bool:
    """Return whether a control looks at pictures as they are, and not at a map that is made of them."""
    return info.kind == "ip_adapter" or (info.kind == SPARSE and info.variant != "scribble")


def _check_options(role: str, control: ControlFile, kind: str) -> None:
    if control.frames and kind != SPARSE:
        raise ConfigError(f"{role}.frames: only a SparseCtrl takes single frames; {control.path} reads every frame")
    if control.image_encoder and kind != "ip_adapter":
        raise ConfigError(f"{role}.image_encoder: only an IP-Adapter has one; leave it out for {control.path}")
    with _named(role):
        if kind == "ip_adapter":
            encoder_folder(Path(control.path).expanduser(), control.image_encoder)
        if control.preprocessor == "canny":
            require_canny()
        elif control.preprocessor.startswith("depth:"):
            check_depth_folder(control.preprocessor.removeprefix("depth:"))


def _pictures(
    role: str, control: ControlFile, info: FileInfo, own: Mapping[str, Footage], num_frames: int
) -> tuple[tuple[Shot, ...], tuple[int, ...] | None]:
    """Return a control's pictures, and for a SparseCtrl the frames that they are."""
    sparse = info.kind == SPARSE
    if control.source is None and sparse:
        return _sparse_pictures(role, control, info, own, num_frames)
    footage = _opened(f"{role}.source", control.source) if control.source else _borrowed(role, control, info, own)
    with _named(role):
        if sparse:
            placed = footage.some(control.frames, num_frames)
            return (Shot(footage=footage, places=tuple(placed.values())),), tuple(placed)
        return (Shot(footage=footage, places=tuple(footage.every(num_frames))),), None


def _sparse_pictures(
    role: str, control: ControlFile, info: FileInfo, own: Mapping[str, Footage], num_frames: int
) -> tuple[tuple[Shot, ...], tuple[int, ...]]:
    """Return the job's own first and last picture, and which frames they are."""
    placed = {0: own["image"]} if "image" in own else {}
    if "last_image" in own:
        placed |= {num_frames - 1: own["last_image"]}
    if not placed or info.variant == "scribble":
        raise ConfigError(
            f"{role}: {control.path} has nothing to read; give its pictures behind a '=', as "
            f"{Path(control.path).name}=sketches{'' if info.variant == 'scribble' else ', or image'}"
        )
    if control.frames:
        if len(placed) > 1:
            raise ConfigError(f"{role}.frames: image and last_image are the first and last frame; leave them out")
        (footage,) = placed.values()
        with _named(role):
            placed = dict.fromkeys(footage.some(control.frames, num_frames), footage)
    return tuple(Shot(footage=footage, places=(0,)) for footage in placed.values()), tuple(placed)


def _borrowed(role: str, control: ControlFile, info: FileInfo, own: Mapping[str, Footage]) -> Footage:
    """Return what a control without a source reads: the job's video or picture."""
    order: Sequence[str] = ("image", "video") if info.kind == "ip_adapter" else ("video", "image")
    found = next((own[name] for name in order if name in own), None)
    if found is None:
        raise ConfigError(
            f"{role}: {control.path} has nothing to read; give a video, a folder of frames or a picture behind a '=', "
            f"as {Path(control.path).name}=dance.mp4"
        )
    return found


def _start(config: AnimateConfig, own: Mapping[str, Footage], *, drawn: bool) -> Start | None:
    """Return where the frames begin; the pictures count where they are `drawn` anew."""
    video = None
    if "video" in own:
        with _named("video"):
            video = Shot(footage=own["video"], places=tuple(own["video"].every(config.num_frames)))
    first, last = (own.get("image"), own.get("last_image")) if drawn else (None, None)
    found = Start(video=video, first=first, last=last)
    return None if found == Start() else found


def _notes(config: AnimateConfig, start: Start | None, taker: str | None) -> tuple[str, ...]:
    if start is None or taker is not None:
        return ()
    given = [role for role in ("image", "last_image") if getattr(config, role)]
    if not given:
        return ()
    if start.video:
        how = "noised in the place of the video's own frame there"
    elif len(given) == 2:
        how = "blended over the clip and noised, as what its frames are drawn from"
    else:
        how = "noised, as what every frame is drawn from"
    return (
        f"{' and '.join(given)}: without a SparseCtrl RGB among the controls, taken {how}; a lower denoise keeps more of it",
    )


def _opened(role: str, path: str | Path) -> Footage:
    with _named(role):
        return open_footage(path)


@contextmanager
def _named(role: str) -> Iterator[None]:
    """Begin an error's message with the field that it is about."""
    try:
        yield
    except StillmotionError as error:
        mark = "." if isinstance(error, ConfigError) else ": "
        raise type(error)(f"{role}{mark}{error}") from error
