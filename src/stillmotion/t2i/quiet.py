"""The loading bars of diffusers and transformers, which a door switches off where it shows its own."""

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


def hide_loading_bars() -> None:
    """Switch them off for this process; what is downloaded from a hub still shows how far it is."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
