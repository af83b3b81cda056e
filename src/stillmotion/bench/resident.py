"""The resident memory of this process, as the system counts it."""

import sys
from pathlib import Path

from stillmotion.errors import StillmotionError


def forget_peak() -> None:
    """Let the peak begin anew from what is held now, where the system can: making the models may have held more."""
    if sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return  # then the peak since the start counts


def peak() -> int:
    """Return the most resident memory that this process has held, in bytes."""
    if sys.platform == "linux":
        # `ru_maxrss` of a process begins with that of the one which started it, and that may have been larger.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    if sys.platform == "win32":
        raise StillmotionError("Peak memory cannot be measured on this system; leave memory out.")
    import resource  # noqa: PLC0415  # there is none on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
