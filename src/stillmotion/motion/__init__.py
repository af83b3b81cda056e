"""The motion module, its variants and adapters, and plugging them into an image UNet. No files, no downloads."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.motion.architectures import ARCHITECTURES as ARCHITECTURES
    from stillmotion.motion.architectures import Architecture as Architecture
    from stillmotion.motion.geometry import MotionGeometry as MotionGeometry
    from stillmotion.motion.lora import DomainAdapter as DomainAdapter
    from stillmotion.motion.lora import LoraAdapter as LoraAdapter
    from stillmotion.motion.lora import MotionLora as MotionLora
    from stillmotion.motion.module import MotionModule as MotionModule
    from stillmotion.motion.plug import Plugged as Plugged
    from stillmotion.motion.plug import plug as plug
    from stillmotion.motion.variants import VARIANTS as VARIANTS
    from stillmotion.motion.variants import NoiseSchedule as NoiseSchedule
    from stillmotion.motion.variants import Variant as Variant

NAMES = lazily(__name__)
