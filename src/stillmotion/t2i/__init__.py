"""The image model that is made to move: loading it whatever its packaging, and its parts."""

from stillmotion.t2i.loading import load_t2i as load_t2i
from stillmotion.t2i.models import T2I as T2I
