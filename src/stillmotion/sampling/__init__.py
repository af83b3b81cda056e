"""Sampling: the denoiser, the noise schedule, samplers by name, the loop over them."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.sampling.control import Control as Control
    from stillmotion.sampling.control import Moment as Moment
    from stillmotion.sampling.control import Steering as Steering
    from stillmotion.sampling.denoiser import Denoiser as Denoiser
    from stillmotion.sampling.denoiser import Guidance as Guidance
    from stillmotion.sampling.loop import Step as Step
    from stillmotion.sampling.loop import sample as sample
    from stillmotion.sampling.names import SamplerName as SamplerName
    from stillmotion.sampling.samplers import SAMPLERS as SAMPLERS
    from stillmotion.sampling.samplers import make_sampler as make_sampler
    from stillmotion.sampling.schedule import Diffusion as Diffusion

NAMES = lazily(__name__)
