"""Baselines: Text2Video-Zero and Tune-A-Video on any image model, with `animate`'s config, events and clips."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.baselines.config import BaselineConfig as BaselineConfig
    from stillmotion.baselines.config import Text2VideoZeroConfig as Text2VideoZeroConfig
    from stillmotion.baselines.config import TuneAVideoConfig as TuneAVideoConfig
    from stillmotion.baselines.events import BaselineEvent as BaselineEvent
    from stillmotion.baselines.events import Inverted as Inverted
    from stillmotion.baselines.events import Tuned as Tuned
    from stillmotion.baselines.job import baseline as baseline
    from stillmotion.baselines.job import making as making

NAMES = lazily(__name__)
