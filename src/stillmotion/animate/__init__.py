"""Animate: a config in, events and clips out."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.animate.clip import Clip as Clip
    from stillmotion.animate.config import AnimateConfig as AnimateConfig
    from stillmotion.animate.events import Decoding as Decoding
    from stillmotion.animate.events import Event as Event
    from stillmotion.animate.events import Finished as Finished
    from stillmotion.animate.events import Loaded as Loaded
    from stillmotion.animate.events import Started as Started
    from stillmotion.animate.events import StepDone as StepDone
    from stillmotion.animate.events import WindowDone as WindowDone
    from stillmotion.animate.job import animate as animate
    from stillmotion.animate.job import animation as animation
    from stillmotion.animate.job import run as run
    from stillmotion.animate.plan import Plan as Plan
    from stillmotion.animate.plan import make_plan as make_plan
    from stillmotion.animate.replay import plan_replay as plan_replay
    from stillmotion.animate.replay import plan_resume as plan_resume
    from stillmotion.animate.replay import read_record as read_record
    from stillmotion.animate.replay import replay as replay
    from stillmotion.animate.session import Models as Models
    from stillmotion.animate.session import Session as Session

NAMES = lazily(__name__)
