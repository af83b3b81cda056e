"""How the toyworld's weights are made: VAE, CLIP pair, base T2I, judge, motion module, and what is trained
over them, in that order.

Each stage goes on from its newest checkpoint and is skipped once its file stands, so the recipe can be stopped at any
moment and started again.
"""

from stillmotion.claims.recipe.config import RecipeConfig as RecipeConfig
from stillmotion.claims.recipe.config import StageStep as StageStep
from stillmotion.claims.recipe.cooking import ablations as ablations
from stillmotion.claims.recipe.cooking import cook as cook
from stillmotion.claims.recipe.cooking import finish as finish
from stillmotion.claims.recipe.cooking import stages as stages
from stillmotion.claims.recipe.gates import GateClosed as GateClosed
