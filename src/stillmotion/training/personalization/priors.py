"""Preserving the prior (Ruiz et al. 2023, §3.3): pictures of the class beside those of the subject, so that the model
does not take the one for the other. They are the model's own where nobody gives them.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from stillmotion.checkpoints.writing import written_beside
from stillmotion.seeding import derive, frame_noise
from stillmotion.t2i import T2I
from stillmotion.training.clips import TrainingClip, TrainingClips
from stillmotion.training.events import ClassPicture
from stillmotion.training.personalization.config import PersonalizeConfig
from stillmotion.training.samples import latent_shape, sample_clip
from stillmotion.training.work import autocast_of, model_parents


@dataclass(frozen=True)
class WithPrior:
    """Draws in pairs: at even indices a picture of the subject, at odd ones a picture of the class.

    A step's loss is the mean error on the subject plus `prior_weight` times that on the class. The objective takes the
    mean over both, so each counts twice.
    """

    subject: TrainingClips
    prior: TrainingClips
    prior_weight: float

    def __call__(self, index: int) -> TrainingClip:
        """Return the picture of a global index."""
        pair, is_prior = divmod(index, 2)
        drawn = (self.prior if is_prior else self.subject)[pair]
        return replace(drawn, weight=2 * (self.prior_weight if is_prior else 1.0))


def class_folder(config: PersonalizeConfig, t2i: T2I, folder: Path) -> Path:
    """Return where the pictures that a model makes of a class lie: a folder of their own for all that they depend on."""
    size = [config.width, config.height, config.num_class_pictures]
    facts = [config.class_prompt, str(config.seed), *size, config.precision, model_parents(t2i)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return folder / "class-pictures" / digest[:12]


def draw_class(config: PersonalizeConfig, t2i: T2I, folder: Path, stop: Callable[[], bool]) -> Iterator[ClassPicture]:
    """Make what is missing of the pictures of the class, each whole or not at all; end early where `stop` says True."""
    assert config.class_prompt is not None
    assert config.width is not None  # settled
    assert config.height is not None
    shape = latent_shape(t2i, config.width, config.height)
    for index in range(config.num_class_pictures):
        path = folder / f"{index:05}.png"
        if path.exists():
            continue
        if stop():
            return
        noise = frame_noise(derive(config.seed, "class picture", index), range(1), shape)
        (picture,) = sample_clip(
            t2i, t2i.scheduler_config, config.class_prompt, noise, autocast_of(t2i, config.precision)
        )
        with written_beside(path) as beside:
            Image.fromarray(picture).save(beside, format="PNG")
        yield ClassPicture(made=index + 1, total=config.num_class_pictures)
