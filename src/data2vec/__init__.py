"""data2vec: self-supervised learning for speech, vision and language.

Public names are loaded when they are first used (PEP 562), so ``import data2vec`` is quick and does not load torch.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:  # the same names as in _HOME, for editors and type checkers; tests/meta holds the two together
    from data2vec.errors import UserError as UserError
    from data2vec.models.audio.config import Data2VecAudioConfig as Data2VecAudioConfig
    from data2vec.models.audio.model import Data2VecAudioModel as Data2VecAudioModel
    from data2vec.models.text.config import Data2VecTextConfig as Data2VecTextConfig
    from data2vec.models.text.model import Data2VecTextModel as Data2VecTextModel
    from data2vec.models.v2.audio import Data2Vec2AudioModel as Data2Vec2AudioModel
    from data2vec.models.v2.config import Data2Vec2AudioConfig as Data2Vec2AudioConfig
    from data2vec.models.v2.config import Data2Vec2TextConfig as Data2Vec2TextConfig
    from data2vec.models.v2.config import Data2Vec2VisionConfig as Data2Vec2VisionConfig
    from data2vec.models.v2.text import Data2Vec2TextModel as Data2Vec2TextModel
    from data2vec.models.v2.vision import Data2Vec2VisionModel as Data2Vec2VisionModel
    from data2vec.models.vision.config import Data2VecVisionConfig as Data2VecVisionConfig
    from data2vec.models.vision.model import Data2VecVisionModel as Data2VecVisionModel
    from data2vec.objectives.v1 import Data2VecObjective as Data2VecObjective
    from data2vec.objectives.v2 import Data2Vec2Objective as Data2Vec2Objective
    from data2vec.processing.audio import Wav2Vec2FeatureExtractor as Wav2Vec2FeatureExtractor
    from data2vec.processing.ctc import Wav2Vec2CTCTokenizer as Wav2Vec2CTCTokenizer
    from data2vec.processing.speech import Wav2Vec2Processor as Wav2Vec2Processor
    from data2vec.processing.text import RobertaTokenizer as RobertaTokenizer
    from data2vec.processing.text import RobertaTokenizerFast as RobertaTokenizerFast
    from data2vec.processing.vision import BeitImageProcessor as BeitImageProcessor

_HOME = {  # public name -> the module that defines it
    "Data2VecAudioConfig": "data2vec.models.audio.config",
    "Data2VecAudioModel": "data2vec.models.audio.model",
    "Data2VecTextConfig": "data2vec.models.text.config",
    "Data2VecTextModel": "data2vec.models.text.model",
    "Data2VecVisionConfig": "data2vec.models.vision.config",
    "Data2VecVisionModel": "data2vec.models.vision.model",
    "Data2VecObjective": "data2vec.objectives.v1",
    "Data2Vec2AudioConfig": "data2vec.models.v2.config",
    "Data2Vec2AudioModel": "data2vec.models.v2.audio",
    "Data2Vec2TextConfig": "data2vec.models.v2.config",
    "Data2Vec2TextModel": "data2vec.models.v2.text",
    "Data2Vec2VisionConfig": "data2vec.models.v2.config",
    "Data2Vec2VisionModel": "data2vec.models.v2.vision",
    "Data2Vec2Objective": "data2vec.objectives.v2",
    "BeitImageProcessor": "data2vec.processing.vision",
    "RobertaTokenizer": "data2vec.processing.text",
    "RobertaTokenizerFast": "data2vec.processing.text",
    "Wav2Vec2CTCTokenizer": "data2vec.processing.ctc",
    "Wav2Vec2FeatureExtractor": "data2vec.processing.audio",
    "Wav2Vec2Processor": "data2vec.processing.speech",
    "UserError": "data2vec.errors",
}

__all__ = [*_HOME, "__version__"]

if not TYPE_CHECKING:  # hidden from type checkers, which would take any misspelt name for granted

    def __getattr__(name: str) -> object:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module 'data2vec' has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value  # the next access does not come here
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
