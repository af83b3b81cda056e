"""Stillmotion makes any Stable Diffusion checkpoint move, and trains what makes it move.

    import stillmotion as sm

    clip = sm.animate(sm.AnimateConfig(prompt="a red ball rolling right on green grass"))
    clip.save("ball.mp4")

The names below are the public face; each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily
from stillmotion.version import __version__ as __version__

if TYPE_CHECKING:
    from stillmotion.animate import AnimateConfig as AnimateConfig
    from stillmotion.animate import Clip as Clip
    from stillmotion.animate import Decoding as Decoding
    from stillmotion.animate import Event as Event
    from stillmotion.animate import Finished as Finished
    from stillmotion.animate import Loaded as Loaded
    from stillmotion.animate import Session as Session
    from stillmotion.animate import Started as Started
    from stillmotion.animate import StepDone as StepDone
    from stillmotion.animate import WindowDone as WindowDone
    from stillmotion.animate import animate as animate
    from stillmotion.animate import animation as animation
    from stillmotion.animate import replay as replay
    from stillmotion.baselines import Text2VideoZeroConfig as Text2VideoZeroConfig
    from stillmotion.baselines import TuneAVideoConfig as TuneAVideoConfig
    from stillmotion.baselines import baseline as baseline
    from stillmotion.checkpoints import FileInfo as FileInfo
    from stillmotion.checkpoints import convert as convert
    from stillmotion.checkpoints import inspect as inspect
    from stillmotion.checkpoints import load as load
    from stillmotion.checkpoints import save as save
    from stillmotion.errors import Cancelled as Cancelled
    from stillmotion.errors import ConfigError as ConfigError
    from stillmotion.errors import FileError as FileError
    from stillmotion.errors import MismatchError as MismatchError
    from stillmotion.errors import StillmotionError as StillmotionError
    from stillmotion.evaluation import EvaluateConfig as EvaluateConfig
    from stillmotion.evaluation import Evaluation as Evaluation
    from stillmotion.evaluation import evaluate as evaluate
    from stillmotion.motion import DomainAdapter as DomainAdapter
    from stillmotion.motion import MotionLora as MotionLora
    from stillmotion.motion import MotionModule as MotionModule
    from stillmotion.motion import Plugged as Plugged
    from stillmotion.motion import plug as plug
    from stillmotion.t2i import T2I as T2I
    from stillmotion.t2i import load_t2i as load_t2i
    from stillmotion.training import PersonalizeConfig as PersonalizeConfig
    from stillmotion.training import TrainConfig as TrainConfig
    from stillmotion.training import personalize as personalize
    from stillmotion.training import train as train

NAMES = lazily(__name__)
