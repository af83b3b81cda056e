"""What the CPU is and can do, as PyTorch tells it."""

from typing import Any

import torch


def processor() -> dict[str, Any]:
    """Return PyTorch's facts on the CPU: `cpu_name`, and whether it has `avx512_bf16`, `amx_bf16` and the like.

    Empty where this PyTorch is too old to tell; its user gets float32, and products as that PyTorch makes them.
    """
    tell = getattr(torch.cpu, "get_capabilities", dict)
    return dict(tell())
