"""Configs: one frozen dataclass per job is the only source of its fields.

The command line, YAML files, the Studio's form and Python calls are all read into that class by the functions here.
Values are checked and brought to their types in one place, so every door refuses the same mistakes in the same words:
`num_frames: expected an integer >= 1, got 'abc'`. Limits stand in the annotation, the sentence beneath the field:

    @dataclass(frozen=True, kw_only=True)
    class SceneConfig(Config):
        width: Annotated[int | None, Limits(minimum=8, multiple_of=8)] = None
        \"\"\"Width in pixels; the model's own by default.\"\"\"
"""

from stillmotion.config.adapter_file import AdapterFile as AdapterFile
from stillmotion.config.control_file import ControlFile as ControlFile
from stillmotion.config.embedding_file import EmbeddingFile as EmbeddingFile
from stillmotion.config.fields import Setting as Setting
from stillmotion.config.fields import field_docs as field_docs
from stillmotion.config.fields import settings as settings
from stillmotion.config.kinds import Limits as Limits
from stillmotion.config.mapping import from_dict as from_dict
from stillmotion.config.mapping import to_dict as to_dict
from stillmotion.config.root import Config as Config
from stillmotion.config.root import from_yaml as from_yaml
from stillmotion.config.root import to_yaml as to_yaml
from stillmotion.config.text import read_yaml as read_yaml
from stillmotion.config.text import with_overrides as with_overrides
