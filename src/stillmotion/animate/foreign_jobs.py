"""Jobs written for other programs, in this one's words.

Read as they are: the reference implementation's YAML, a list of jobs each with lists of prompts (its first version: a
mapping of them), and the prompt-travel JSON of animatediff-cli and animatediff-cli-prompt-travel. Every key that means
something is translated or refused with its place; none is dropped without a word.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillmotion.config.text import parse_yaml
from stillmotion.errors import ConfigError, FileError

_SAMPLERS = {
    "ddim": "ddim",
    "pndm": "pndm",
    "unipc": "unipc",
    "euler": "euler",
    "euler_a": "euler_a",
    "dpmpp_2m": "dpm++",
    "k_dpmpp_2m": "dpm++_karras",
    "dpmpp_2m_sde": "dpm++_sde",
    "k_dpmpp_2m_sde": "dpm++_sde_karras",
    "lcm": "lcm",
}
_TRAVEL_ONLY = {
    "n_prompt", "n_prompts", "prompts", "motion_module", "steps", "scheduler", "lora_map", "motion_lora_map", "path",
    "prompt_fixed_ratio", "vae_path", "base", "compile",
}  # fmt: skip
_ELSEWHERE = {
    "context_schedule": "not followed",
    "upscale_config": "for that program's tile-upscale, not followed; see --upscale",
}
"""What a clip is made without, as it stands there, and what is said of it."""
_UNSAID = {
    "name",
    "compile",
    "tensor_interpolation_slerp",
    "unet_batch_size",
    "output",
    "result",
    "base",
    *_ELSEWHERE,
}
_REFERENCE_UNSAID = {"inference_config", "base", "init_image", "controlnet_config", "normalize_condition_images"}


@dataclass(frozen=True)
class Job:
    """One job of a file, as a mapping of this program's fields."""

    fields: Mapping[str, Any]
    where: str = ""
    """Its place in the file: "job 2, prompt 3"; empty where the file is one job."""
    notes: tuple[str, ...] = field(default=())
    """What of it is not followed."""


def read_jobs(path: str | os.PathLike[str]) -> list[Job]:
    """Return the jobs of a YAML or JSON file, of this program or of another; their values are not checked yet.

    Raises `FileError` for a file that cannot be read, `ConfigError` naming the place of what cannot be translated.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path}: expected a YAML config, but it cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: expected a YAML config, but it is not text.") from error
    try:
        return translated(_parsed(text))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def translated(loaded: Any) -> list[Job]:
    """Return the jobs of what a file holds."""
    if loaded is None:
        return [Job({})]
    if isinstance(loaded, list):
        return [job for index, item in enumerate(loaded) for job in _reference(item, f"job {index + 1}")]
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"expected `key: value` lines or a list of jobs, got a {type(loaded).__name__}")
    if loaded and all(isinstance(item, Mapping) and "n_prompt" in item for item in loaded.values()):
        return [job for name, item in loaded.items() for job in _reference(item, f"job {name}")]
    if _TRAVEL_ONLY & set(loaded) and {"prompt_map", "prompt", "prompts", "path"} & set(loaded):
        return _travel(loaded)
    return [Job(_begun(loaded))]


def _parsed(text: str) -> Any:
    """Return what the text holds: JSON, which may be indented by tabs, or YAML."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML may begin with a brace, too; its reader names the line of what is neither
    return parse_yaml(text)


def _begun(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with a prompt: where there is only a map of prompts, that of its first frame."""
    prompts = fields.get("prompt_map")
    if fields.get("prompt") or not isinstance(prompts, Mapping) or not prompts:
        return dict(fields)
    first = next((key for key in prompts if str(key) == "0"), next(iter(prompts)))
    rest = {key: text for key, text in prompts.items() if str(key) != "0"}
    return {**fields, "prompt": prompts[first], "prompt_map": rest}


def _reference(item: Any, where: str) -> list[Job]:
    if not isinstance(item, Mapping):
        raise ConfigError(f"{where}: expected a mapping with prompt and motion_module, got {item!r}")
    left = {key: value for key, value in item.items() if value not in (None, "") and key not in _REFERENCE_UNSAID}
    prompts = _list(left.pop("prompt", None), f"{where}.prompt")
    count = len(prompts)
    negatives = _one_each(left.pop("n_prompt", [""]), count, f"{where}.n_prompt")
    seeds = _one_each(left.pop("seed", -1), count, f"{where}.seed")
    modules = _list(left.pop("motion_module", [None]), f"{where}.motion_module")
    common = _reference_models(left, where)
    renamed = {
        "steps": "num_inference_steps",
        "guidance_scale": "guidance_scale",
        "W": "width",
        "H": "height",
        "L": "num_frames",
    }
    common |= {ours: left.pop(theirs) for theirs, ours in renamed.items() if theirs in left}
    if left:
        raise ConfigError(f"{where}.{next(iter(left))}: this key of a reference job is not known here; leave it out")
    jobs = []
    for module in modules:
        for index, (prompt, negative, seed) in enumerate(zip(prompts, negatives, seeds, strict=True)):
            said = {"prompt": prompt, "negative_prompt": negative or "", "seed": _seed(seed)}
            moves = {} if module is None else {"motion": module}
            jobs.append(Job({**common, **moves, **said}, f"{where}, prompt {index + 1}"))
    return jobs


def _reference_models(left: dict[str, Any], where: str) -> dict[str, Any]:
    """Take the model files out of `left` and return them in our words."""
    found: dict[str, Any] = {}
    model = left.pop("dreambooth_path", None) or left.pop("path", None)
    if model:
        found["model"] = model
    if lora := left.pop("lora_model_path", None):
        found["loras"] = [{"path": lora, "strength": left.pop("lora_alpha", 0.8)}]
    left.pop("lora_alpha", None)
    if adapter := left.pop("adapter_lora_path", None):
        found["domain_adapter"] = {"path": adapter, "strength": left.pop("adapter_lora_scale", 1.0)}
    left.pop("adapter_lora_scale", None)
    loras = left.pop("motion_module_lora_configs", [])
    if not all(isinstance(lora, Mapping) and "path" in lora for lora in loras):
        raise ConfigError(f"{where}.motion_module_lora_configs: expected a list of path and alpha, got {loras!r}")
    if loras:
        found["motion_loras"] = [{"path": lora["path"], "strength": lora.get("alpha", 1.0)} for lora in loras]
    control, pictures = left.pop("controlnet_path", None), left.pop("controlnet_images", [])
    frames = left.pop("controlnet_image_indexs", [0])
    if control:
        pictures = _list(pictures, f"{where}.controlnet_images")
        if len(pictures) != 1:
            raise ConfigError(
                f"{where}.controlnet_images: one picture is read as it is, got {len(pictures)}; put them into a folder and "
                f"give --controls MODEL=FOLDER@frames:{','.join(str(frame) for frame in frames)}"
            )
        found["controls"] = [{"path": control, "source": pictures[0], "frames": list(frames)}]
    return found


def _travel(loaded: Mapping[str, Any]) -> list[Job]:
    left = {key: value for key, value in loaded.items() if value not in (None, "", [], {})}
    notes = [f"{key}: {said}" for key, said in _ELSEWHERE.items() if key in left]
    for key in _UNSAID:
        left.pop(key, None)
    fields: dict[str, Any] = {}
    plain = {
        "motion_module": "motion", "vae_path": "vae", "steps": "num_inference_steps", "guidance_scale": "guidance_scale",
        "prompt_fixed_ratio": "hold_ratio", "head_prompt": "head_prompt", "tail_prompt": "tail_prompt",
    }  # fmt: skip
    fields |= {ours: left.pop(theirs) for theirs, ours in plain.items() if theirs in left}
    for theirs, ours in (("lora_map", "loras"), ("motion_lora_map", "motion_loras")):
        fields |= {ours: _strengths(left.pop(theirs), theirs)} if theirs in left else {}
    if "path" in left:
        fields["model"] = left.pop("path")
    if "scheduler" in left:
        name = left.pop("scheduler")
        if name not in _SAMPLERS:
            raise ConfigError(f"scheduler: {name!r} is none of those here: {', '.join(_SAMPLERS)}")
        fields["sampler"] = _SAMPLERS[name]
    if "clip_skip" in left:
        fields["clip_skip"] = left.pop("clip_skip")
    scenes = [left.pop("prompt_map")] if "prompt_map" in left else []
    for name in ("prompt", "prompts"):
        scenes += _list(left.pop(name), name) if name in left else []
    if not scenes:
        raise ConfigError("prompt_map: missing; expected {frame: text}")
    negatives = _list(left.pop("n_prompt", None) or left.pop("n_prompts", None) or "", "n_prompt")
    seeds = _list(left.pop("seed", -1), "seed")
    _refuse_sections(left)
    jobs = []
    for index in range(max(len(scenes), len(seeds))):
        scene, negative = scenes[index % len(scenes)], negatives[index % len(negatives)]
        told = {"prompt_map": dict(scene)} if isinstance(scene, Mapping) else {"prompt": scene}
        said = {"negative_prompt": negative, "seed": _seed(seeds[index % len(seeds)])}
        where = (
            f"scene {index % len(scenes) + 1}, seed {index % len(seeds) + 1}"
            if max(len(scenes), len(seeds)) > 1
            else ""
        )
        jobs.append(Job({**fields, **_begun(told), **said}, where, tuple(notes)))
    return jobs


def _refuse_sections(left: Mapping[str, Any]) -> None:
    """Refuse a section that is switched on and means nothing here; those that are off mean nothing anywhere."""
    for key, section in left.items():
        if not isinstance(section, Mapping):
            raise ConfigError(f"{key}: this key of a prompt-travel file is not known here; leave it out")
        inner = [name for name, part in section.items() if isinstance(part, Mapping) and part.get("enable")]
        if section.get("enable") or inner:
            name = ".".join([key, *inner[:1]])
            raise ConfigError(
                f"{name}: switched on, but not read from such a file; switch it off, and use --controls, --video"
            )


def _strengths(given: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected {{file: strength}}, got {given!r}")
    found = []
    for path, strength in given.items():
        if isinstance(strength, bool) or not isinstance(strength, int | float):
            raise ConfigError(f"{where}.{path}: expected its strength as a number, got {strength!r}")
        found.append({"path": path, "strength": strength})
    return found


def _list(value: Any, where: str) -> list[Any]:
    found = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not found or (found == [None] and where.endswith("prompt")):
        raise ConfigError(f"{where}: missing; expected a list of texts")
    return found


def _one_each(value: Any, count: int, where: str) -> list[Any]:
    """Return a value per prompt: one for all, or one for each; the reference dropped prompts where the numbers differed."""
    found = _list(value, where)
    if len(found) not in (1, count):
        raise ConfigError(f"{where}: expected 1 or as many as prompts ({count}), got {len(found)}")
    return found * count if len(found) == 1 else found


def _seed(value: Any) -> Any:
    return None if value in (-1, "-1", None, "random") else value
