"""Personalisation: a subject or a style out of a folder of pictures, on the loop that the paper's stages use."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.training.personalization.config import PersonalizeConfig as PersonalizeConfig
    from stillmotion.training.personalization.job import personalize as personalize
    from stillmotion.training.personalization.job import personalizing as personalizing

NAMES = lazily(__name__)
