"""Sentences that a new word is put into where pictures have no captions, as Textual Inversion's own trainer has them
(Gal et al. 2022, `ldm/data/personalized.py` and `personalized_style.py`; shortened to those that differ in sense).
"""

OBJECT = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the large {}",
    "an illustration of a {}",
)
STYLE = (
    "a painting in the style of {}",
    "a rendering in the style of {}",
    "a cropped painting in the style of {}",
    "the painting in the style of {}",
    "a dark painting in the style of {}",
    "a picture in the style of {}",
    "a cool painting in the style of {}",
    "a close-up painting in the style of {}",
    "a bright painting in the style of {}",
    "a good painting in the style of {}",
    "a painting of one thing in the style of {}",
    "a small painting in the style of {}",
    "a large painting in the style of {}",
)


def sentences(token: str, learns: str) -> tuple[str, ...]:
    """Return sentences about a token that stands for an "object" or a "style"."""
    return tuple(sentence.format(token) for sentence in (STYLE if learns == "style" else OBJECT))
