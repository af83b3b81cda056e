"""The toyworld: drawn scenes with captions and exact truth, and tiny Stable-Diffusion-shaped weights trained on them."""

from stillmotion.toyworld.language import Scene as Scene
from stillmotion.toyworld.language import parse as parse
from stillmotion.toyworld.weights import brought_file as brought_file
from stillmotion.toyworld.weights import load_judge as load_judge
from stillmotion.toyworld.weights import manifest as manifest
from stillmotion.toyworld.weights import motion_file as motion_file
from stillmotion.toyworld.weights import weights_folder as weights_folder
from stillmotion.toyworld.weights import write_manifest as write_manifest
from stillmotion.toyworld.world import Drawn as Drawn
from stillmotion.toyworld.world import draw_clips as draw_clips
from stillmotion.toyworld.world import draw_pictures as draw_pictures
