"""Timings against others' ways of doing the same: same weights, dtype and threads, in turn within one process; and of long
clips against short ones.

A timing is a ratio: machines differ and are noisy, so each pair of runs follows one another at once, and the median of
the pairs' ratios is what counts.
"""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.bench.long_clips import ClipCost as ClipCost
    from stillmotion.bench.long_clips import LongShape as LongShape
    from stillmotion.bench.long_clips import LongTiming as LongTiming
    from stillmotion.bench.long_clips import bench_long as bench_long
    from stillmotion.bench.memory import StepMemory as StepMemory
    from stillmotion.bench.models import SIZES as SIZES
    from stillmotion.bench.plugging import PlugTiming as PlugTiming
    from stillmotion.bench.plugging import bench_plug as bench_plug
    from stillmotion.bench.shape import TrainShape as TrainShape
    from stillmotion.bench.step import StepTiming as StepTiming
    from stillmotion.bench.step import bench_step as bench_step
    from stillmotion.bench.training import TrainTiming as TrainTiming
    from stillmotion.bench.training import bench_train as bench_train

NAMES = lazily(__name__)
