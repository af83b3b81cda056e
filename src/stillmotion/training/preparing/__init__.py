"""Filling a latent cache as a job: config in, events out, by this process or by several."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.training.preparing.config import PrepareConfig as PrepareConfig
    from stillmotion.training.preparing.job import CacheFilled as CacheFilled
    from stillmotion.training.preparing.job import PrepareEvent as PrepareEvent
    from stillmotion.training.preparing.job import SourceFound as SourceFound
    from stillmotion.training.preparing.job import preparing as preparing

NAMES = lazily(__name__)
