"""What Stillmotion says when something is wrong.

Every message names the value, what was expected and what to do. All are `ValueError`s too, so a caller who knows
nothing of Stillmotion still catches them.
"""


class StillmotionError(ValueError):
    """The base of every error that a user can cause and mend."""


class FileError(StillmotionError):
    """A file is missing, damaged, unsafe, or not what was asked for; the message says what it really is."""


class ConfigError(StillmotionError):
    """A configured value is unknown or out of range."""


class MismatchError(StillmotionError):
    """Two parts do not fit: a motion module and a UNet, a LoRA and a motion module, more frames than positions."""


class Cancelled(StillmotionError):
    """The user stopped a job; what was finished before is kept."""
