"""Training: the paper's three stages over one loop, exact and resumable."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.training.config import TrainConfig as TrainConfig
    from stillmotion.training.events import ClassPicture as ClassPicture
    from stillmotion.training.events import Prepared as Prepared
    from stillmotion.training.events import Sampled as Sampled
    from stillmotion.training.events import Saved as Saved
    from stillmotion.training.events import Trained as Trained
    from stillmotion.training.events import TrainEvent as TrainEvent
    from stillmotion.training.events import Validated as Validated
    from stillmotion.training.guard import MotionDied as MotionDied
    from stillmotion.training.job import train as train
    from stillmotion.training.job import training as training
    from stillmotion.training.personalization import PersonalizeConfig as PersonalizeConfig
    from stillmotion.training.personalization import personalize as personalize
    from stillmotion.training.personalization import personalizing as personalizing

NAMES = lazily(__name__)
