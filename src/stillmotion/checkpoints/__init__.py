"""Motion modules and adapters on disk: read safely in every dialect, recognised, converted, written whole."""

from stillmotion.checkpoints.conversion import DIALECTS as DIALECTS
from stillmotion.checkpoints.conversion import convert as convert
from stillmotion.checkpoints.conversion import save as save
from stillmotion.checkpoints.inspection import FileInfo as FileInfo
from stillmotion.checkpoints.inspection import inspect as inspect
from stillmotion.checkpoints.loading import Loaded as Loaded
from stillmotion.checkpoints.loading import load as load
