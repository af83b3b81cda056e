"""The record of a run: what `run.json` holds, and the small copy inside the clip."""

import datetime as dt
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from stillmotion.animate.config import AnimateConfig
from stillmotion.data import WrittenClip
from stillmotion.devices import device_name
from stillmotion.version import __version__

SCHEMA = 1
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy", "av")
_IN_THE_CLIP = (
    *("schema", "stillmotion", "baseline", "config", "seed", "models", "versions", "device", "dtype", "parameters"),
)


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One file that a job read weights from."""

    role: str
    """What it is to the job: model, vae, motion, loras.0, motion_loras.0, domain_adapter."""
    name: str
    """Its name, from the model's folder on: the same on every machine."""
    path: str
    """Where it lay, as the user said it."""
    sha256: str
    """Of its content."""
    kind: str = ""
    """What it holds."""
    strength: float | None = None
    """How strongly it acted, if it is an adapter."""
    applied: int | None = None
    """How many layers it acted on, if it is an adapter of the plugged model; `loading` says more of the others."""

    @property
    def key(self) -> str:
        """Return role and name, by which `replay` finds the same file again."""
        return f"{self.role}/{self.name}"


def begin(
    config: AnimateConfig,
    models: Sequence[ModelFile],
    device: torch.device,
    loading: Sequence[str],
    moved_by: str | None = None,
) -> dict[str, Any]:
    """Return what of a clip's record is known before it is written.

    `config` is settled in everything; `loading` says what of the image model's files was applied and skipped,
    `moved_by` what moves the clip where that is no motion module.
    """
    return {
        "schema": SCHEMA,
        "stillmotion": __version__,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "config": config.to_dict(),
        "seed": str(config.seed),
        "models": [asdict(file) for file in models],
        "loading": list(loading),
        "versions": versions(),
        "device": str(device),
        "device_name": device_name(device),
        "dtype": config.dtype,
        "threads": torch.get_num_threads(),
        "parameters": _parameters(config, moved_by),
    }


def end(
    record: Mapping[str, Any], *, seconds: Mapping[str, float], device: torch.device, outputs: Sequence[WrittenClip]
) -> dict[str, Any]:
    """Return the whole record: with timings in seconds, peak memory in bytes, and the files that were written."""
    written = [
        {**asdict(output), "path": output.path.name, "seconds": round(output.num_frames / output.fps, 3)}
        for output in outputs
    ]
    timings = {phase: round(value, 3) for phase, value in seconds.items()}
    return {**record, "timings": timings, "memory": _peak_memory(device), "outputs": written}


def compact(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the copy that travels in the clip: what replaying needs, nothing of where it was written or how fast."""
    small = {key: record[key] for key in _IN_THE_CLIP if key in record}
    small["config"] = {key: value for key, value in record.get("config", {}).items() if key != "output_dir"}
    small["models"] = [{key: file[key] for key in ("role", "name", "sha256")} for file in record.get("models", ())]
    return small


def versions() -> dict[str, str]:
    """Return the versions of what computes a clip: Python, the system, the packages."""
    found = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # vendored: it runs, but does not say which it is
    return found


def _peak_memory(device: torch.device) -> dict[str, int]:
    found = {}
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # there is none on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["peak_rss_bytes"] = peak if sys.platform == "darwin" else peak * 1024
    if device.type == "cuda":
        found["peak_cuda_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def _parameters(config: AnimateConfig, moved_by: str | None) -> str:
    """Return the job in the words that image sites and web UIs read from a picture."""
    facts = {
        "Steps": config.num_inference_steps,
        "Sampler": config.sampler,
        "CFG scale": _number(config.guidance_scale),
        "Seed": config.seed,
        "Size": f"{config.width}x{config.height}",
        "Model": config.model,
        "Motion module": moved_by or config.motion or config.model,
        "Frames": config.num_frames,
        "FPS": f"{config.fps:g}",
        "Version": f"stillmotion {__version__}",
    }
    if config.denoise is not None:
        facts["Denoising strength"] = f"{config.denoise:g}"
    if config.upscale > 1 and config.upscale_denoise is not None:
        facts |= {"Hires upscale": f"{config.upscale:g}"}
        facts.setdefault("Denoising strength", f"{config.upscale_denoise:g}")
    negative = [f"Negative prompt: {config.negative_prompt}"] if config.negative_prompt else []
    return "\n".join([config.prompt, *negative, ", ".join(f"{name}: {value}" for name, value in facts.items())])


def _number(value: float | Mapping[int, float] | None) -> str:
    """Return a number, or that of the first frame of those that travel: readers of these words know no more."""
    return f"{next(iter(value.values())) if isinstance(value, Mapping) else value or 0:g}"
