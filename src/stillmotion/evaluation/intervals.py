"""How sure a mean is: bias-corrected bootstrap intervals (scipy's), a function of the values and the seed."""

import math
import warnings
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from stillmotion.seeding import derive

_AT_ONCE = 1 << 20  # numbers that are drawn at once


def can_resample() -> bool:
    """Return whether scipy is installed."""
    return find_spec("scipy") is not None


def mean_of(values: Sequence[float], *, ratio: bool = False) -> float:
    """Return the arithmetic mean; of factors (`ratio`) the geometric one."""
    if not ratio:
        return float(np.mean(values))
    return float(np.exp(np.mean(np.log(values))))


def interval_of(
    values: Sequence[float], *, ratio: bool = False, resamples: int = 9999, seed: int = 0, purpose: str = ""
) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of the values' mean (of factors, their geometric mean), BCa (Efron 1987).

    None for a single value, which says nothing of others. Values that are all alike have an interval without width.
    """
    if len(values) < 2:
        return None
    sample = np.log(values) if ratio else np.asarray(values, dtype=float)
    if np.ptp(sample) < 1e-12 * max(1.0, float(np.abs(sample).max())):
        low = high = float(sample[0])
    else:
        low, high = _resampled(sample, resamples, derive(seed, f"bootstrap {purpose}"))
    return (math.exp(low), math.exp(high)) if ratio else (low, high)


def _resampled(sample: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap  # noqa: PLC0415  # an extra

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where BCa fails it says NaN, and the plain interval is taken
            found = bootstrap(
                (sample,),
                np.mean,
                n_resamples=resamples,
                batch=max(_AT_ONCE // len(sample), 1),
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            break
    return float(found.low), float(found.high)
