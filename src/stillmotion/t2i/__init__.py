"""The image model that is made to move: loading it whatever its packaging, its parts, and what people add to it."""

from stillmotion.t2i.custom_diffusion import CustomDiffusion as CustomDiffusion
from stillmotion.t2i.custom_diffusion import apply_custom_diffusion as apply_custom_diffusion
from stillmotion.t2i.embeddings import Embedding as Embedding
from stillmotion.t2i.embeddings import apply_embedding as apply_embedding
from stillmotion.t2i.loading import load_t2i as load_t2i
from stillmotion.t2i.loading import load_vae as load_vae
from stillmotion.t2i.lora import ImageLora as ImageLora
from stillmotion.t2i.lora import apply_lora as apply_lora
from stillmotion.t2i.models import T2I as T2I
