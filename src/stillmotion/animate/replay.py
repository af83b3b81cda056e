"""A clip made again from its record: a `run.json`, its folder, or the clip file itself."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillmotion.animate.clip import Clip
from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.events import Cancel, Event, Finished
from stillmotion.animate.job import run
from stillmotion.animate.plan import Plan, make_plan
from stillmotion.animate.record import SCHEMA, versions
from stillmotion.animate.session import Session
from stillmotion.animate.unfinished import SUFFIX, find_interrupted
from stillmotion.config import with_overrides
from stillmotion.data import read_metadata
from stillmotion.errors import ConfigError, FileError, StillmotionError

_LARGEST_RECORD = 16 << 20  # bytes


def replay(
    source: str | os.PathLike[str],
    *,
    output_dir: Path | None = None,
    overrides: Iterable[str] = (),
    allow_changed_models: bool = False,
    progress: Callable[[Event], None] | None = None,
    cancel: Cancel | None = None,
    session: Session | None = None,
) -> Clip:
    """Make a clip again; on the machine that made it, with the same packages, every frame is the same to the bit.

    Args:
        source: A `run.json`, the folder that holds it, or a clip file with the record inside.
        output_dir: Where a run folder is made; None keeps the clip in memory. What the record says is not followed.
        overrides: `key=value` texts that change the job: another prompt with the same noise, another device.
        allow_changed_models: Go on where a model file is not the one that the clip was made with.
        progress: Called with every event.
        cancel: Asked between steps; True ends the job with `Cancelled`.
        session: Keeps the models loaded for the next job.

    Raises:
        FileError: There is no record in `source`, or it is damaged.
        MismatchError: A model file's sha256 is another than the record's.
        ConfigError: The record, or an override, does not make a valid config.
    """
    plan = plan_replay(source, output_dir=output_dir, overrides=overrides, allow_changed_models=allow_changed_models)
    for event in run(plan, cancel=cancel, session=session):
        if progress is not None:
            progress(event)
        if isinstance(event, Finished):
            return event.clip
    raise StillmotionError("The job ended without a clip.")


def plan_replay(
    source: str | os.PathLike[str],
    *,
    output_dir: Path | None = None,
    overrides: Iterable[str] = (),
    allow_changed_models: bool = False,
) -> Plan:
    """Return the checked plan of a replay, for `run`; arguments and errors as `replay`."""
    found = read_record(source)
    if "unfinished" in found:
        raise FileError(f"{source}: this run was interrupted; `stillmotion replay --resume` goes on with it.")
    config = _config_of(source, found, overrides).replace(output_dir=output_dir)
    return _planned(found, config, allow_changed_models=allow_changed_models)


def plan_resume(source: str | os.PathLike[str], *, allow_changed_models: bool = False) -> Plan:
    """Return the checked plan, for `run`, of what is left of a job that was interrupted.

    It goes on after the step that was kept last, in the folder where it began; on the machine that began it, with the
    same packages, every frame is the same to the bit as if it had never stopped.

    Args:
        source: The folder that it left, whose name ends in `.unfinished`, or the `run.json` in it.
        allow_changed_models: Go on where a model file is not the one that the job began with.

    Raises:
        FileError: `source` is no run, or one that is finished; or its state is damaged.
        MismatchError: The state belongs to another job than the record, or a model file has changed.
        ConfigError: The record does not make a valid config.
    """
    path = Path(source)
    if path.is_dir() and not (path / "run.json").is_file():
        raise FileError(
            f"{source}: this folder is no run: there is no run.json in it. Give the one that ends in {SUFFIX}."
        )
    found = read_record(path)
    config = _config_of(source, found)
    interrupted = find_interrupted(path, found, config)
    config = config.replace(output_dir=interrupted.folder.parent)
    return replace(_planned(found, config, allow_changed_models=allow_changed_models), interrupted=interrupted)


def _config_of(
    source: str | os.PathLike[str], found: Mapping[str, Any], overrides: Iterable[str] = ()
) -> AnimateConfig:
    """Return the config of a record."""
    if baseline := found.get("baseline"):
        raise FileError(
            f"{source}: this clip was made by a baseline; `stillmotion baseline {baseline} --config` takes its record."
        )
    mapping = found.get("config")
    if not isinstance(mapping, dict):
        raise FileError(f"{source}: the record holds no config; it was not written by stillmotion animate.")
    try:
        return AnimateConfig.from_dict(with_overrides(mapping, overrides))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _planned(found: Mapping[str, Any], config: AnimateConfig, *, allow_changed_models: bool) -> Plan:
    plan = make_plan(config, expected={} if allow_changed_models else _expected(found))
    return replace(plan, notes=(*plan.notes, *_differences(found)))


def read_record(source: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return the record of a run, from `run.json`, its folder or a clip; raise `FileError` if there is none.

    It is untrusted: a mapping, and nothing in it is checked beyond its schema.
    """
    path = Path(source)
    if path.is_dir() and (path / "run.json").is_file():
        path = path / "run.json"
    if not path.exists():
        raise FileError(f"{source}: there is no such file.")
    found = _read_json(path) if path.suffix.lower() == ".json" else read_metadata(path)
    if not found:
        raise FileError(
            f"{source}: there is no record of a run in it; give the run.json that was written beside the clip."
        )
    schema = found.get("schema")
    if schema != SCHEMA:
        raise FileError(f"{source}: expected a record of schema {SCHEMA}, got {schema!r}; another version wrote it.")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            raise FileError(f"{path}: expected the record of a run, but the file is far too large for one.")
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, StillmotionError):
            raise
        raise FileError(f"{path}: expected the record of a run, but it is not JSON: {error}.") from error
    if not isinstance(loaded, dict):
        raise FileError(f"{path}: expected the record of a run, got a JSON {type(loaded).__name__}.")
    return loaded


def _differences(found: Mapping[str, Any]) -> list[str]:
    """Return a note for each package that is another version than the one that made the clip."""
    then = found.get("versions")
    return [
        f"{name} is {now} here and was {then[name]} when the clip was made; frames may differ"
        for name, now in versions().items()
        if isinstance(then, dict) and then.get(name, now) != now
    ]


def _expected(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the sha256 of each model file by role and name, as far as the record says."""
    models = found.get("models")
    files = [file for file in models if isinstance(file, dict)] if isinstance(models, list) else []
    return {f"{file.get('role')}/{file.get('name')}": str(file.get("sha256")) for file in files}
