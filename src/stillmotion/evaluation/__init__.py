"""Evaluation: the paper's CLIP scores, motion from optical flow, steadiness, reports; and its user study in `study`."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.evaluation.camera import CameraMeasured as CameraMeasured
    from stillmotion.evaluation.config import EvaluateConfig as EvaluateConfig
    from stillmotion.evaluation.intervals import interval_of as interval_of
    from stillmotion.evaluation.job import ClipMeasured as ClipMeasured
    from stillmotion.evaluation.job import Evaluated as Evaluated
    from stillmotion.evaluation.job import EvaluateEvent as EvaluateEvent
    from stillmotion.evaluation.job import evaluate as evaluate
    from stillmotion.evaluation.job import evaluation as evaluation
    from stillmotion.evaluation.metrics import METRICS as METRICS
    from stillmotion.evaluation.metrics import Metric as Metric
    from stillmotion.evaluation.metrics import MetricName as MetricName
    from stillmotion.evaluation.results import ClipResult as ClipResult
    from stillmotion.evaluation.results import Evaluation as Evaluation
    from stillmotion.evaluation.results import MetricResult as MetricResult

NAMES = lazily(__name__)
