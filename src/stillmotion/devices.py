"""Which device and which numbers: what is there, unless the user says otherwise."""

import torch

from stillmotion.errors import ConfigError
from stillmotion.processor import processor


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" takes CUDA, then MPS, then the CPU. `ConfigError` if it is not here."""
    if name == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:1 or mps, got {name!r}") from error
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= present.get(device.type, 0):
        here = ", ".join(kind for kind, count in present.items() if count)
        raise ConfigError(f"device: {name!r} is not on this machine; it has {here}")
    return device


def choose_dtype(name: str, device: torch.device, *, tiny: bool) -> torch.dtype:
    """Return the dtype called `name`; "auto" takes what the device multiplies fastest without losing the picture.

    A `tiny` model gains nothing from fewer bits and is computed in float32, the same on every machine.
    """
    if name != "auto":
        chosen: torch.dtype = getattr(torch, name)
        return chosen
    if tiny:
        return torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32
    return torch.float16


def device_name(device: torch.device) -> str:
    """Return what the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(processor().get("cpu_name", "cpu")) if device.type == "cpu" else device.type


def _cpu_multiplies_bfloat16() -> bool:
    """Return whether the CPU has instructions for it: without them bfloat16 is slower than float32, not faster."""
    can = processor()
    return bool(can.get("amx_bf16") or can.get("avx512_bf16"))
