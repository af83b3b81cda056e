"""Sampling: the denoiser, the noise schedule, samplers by name, the loop over them."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.sampling.context import Context as Context
    from stillmotion.sampling.context import Window as Window
    from stillmotion.sampling.control import Control as Control
    from stillmotion.sampling.control import Moment as Moment
    from stillmotion.sampling.control import Steering as Steering
    from stillmotion.sampling.denoiser import Denoiser as Denoiser
    from stillmotion.sampling.denoiser import Guidance as Guidance
    from stillmotion.sampling.freeinit import low_pass as low_pass
    from stillmotion.sampling.freeinit import remix as remix
    from stillmotion.sampling.keyframes import Place as Place
    from stillmotion.sampling.keyframes import by_frame as by_frame
    from stillmotion.sampling.keyframes import curve as curve
    from stillmotion.sampling.keyframes import places as places
    from stillmotion.sampling.loop import Course as Course
    from stillmotion.sampling.loop import Step as Step
    from stillmotion.sampling.loop import sample as sample
    from stillmotion.sampling.names import BlendName as BlendName
    from stillmotion.sampling.names import FilterName as FilterName
    from stillmotion.sampling.names import FusionName as FusionName
    from stillmotion.sampling.names import NoiseName as NoiseName
    from stillmotion.sampling.names import SamplerName as SamplerName
    from stillmotion.sampling.names import ScheduleName as ScheduleName
    from stillmotion.sampling.noise import clip_noise as clip_noise
    from stillmotion.sampling.samplers import SAMPLERS as SAMPLERS
    from stillmotion.sampling.samplers import make_sampler as make_sampler
    from stillmotion.sampling.schedule import Diffusion as Diffusion
    from stillmotion.sampling.text import Text as Text
    from stillmotion.sampling.travel import TravellingText as TravellingText

NAMES = lazily(__name__)
