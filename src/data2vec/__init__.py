"""data2vec: self-supervised learning for speech, vision and language.

Public names are loaded when they are first used (PEP 562), so ``import data2vec`` is quick and does not load torch.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:  # the same names as in _HOME, for editors and type checkers; tests/meta holds the two together
    from data2vec.auto import AutoConfig as AutoConfig
    from data2vec.auto import AutoFeatureExtractor as AutoFeatureExtractor
    from data2vec.auto import AutoImageProcessor as AutoImageProcessor
    from data2vec.auto import AutoModel as AutoModel
    from data2vec.auto import AutoModelForAudioClassification as AutoModelForAudioClassification
    from data2vec.auto import AutoModelForAudioFrameClassification as AutoModelForAudioFrameClassification
    from data2vec.auto import AutoModelForAudioXVector as AutoModelForAudioXVector
    from data2vec.auto import AutoModelForCausalLM as AutoModelForCausalLM
    from data2vec.auto import AutoModelForCTC as AutoModelForCTC
    from data2vec.auto import AutoModelForImageClassification as AutoModelForImageClassification
    from data2vec.auto import AutoModelForMaskedLM as AutoModelForMaskedLM
    from data2vec.auto import AutoModelForMultipleChoice as AutoModelForMultipleChoice
    from data2vec.auto import AutoModelForPreTraining as AutoModelForPreTraining
    from data2vec.auto import AutoModelForQuestionAnswering as AutoModelForQuestionAnswering
    from data2vec.auto import AutoModelForSemanticSegmentation as AutoModelForSemanticSegmentation
    from data2vec.auto import AutoModelForSequenceClassification as AutoModelForSequenceClassification
    from data2vec.auto import AutoModelForTokenClassification as AutoModelForTokenClassification
    from data2vec.auto import AutoProcessor as AutoProcessor
    from data2vec.auto import AutoTokenizer as AutoTokenizer
    from data2vec.conversion.loading import load_checkpoint as load_checkpoint
    from data2vec.errors import UserError as UserError
    from data2vec.keras.model import TFData2VecVisionForImageClassification as TFData2VecVisionForImageClassification
    from data2vec.keras.model import TFData2VecVisionForSemanticSegmentation as TFData2VecVisionForSemanticSegmentation
    from data2vec.keras.model import TFData2VecVisionModel as TFData2VecVisionModel
    from data2vec.models.audio.config import Data2VecAudioConfig as Data2VecAudioConfig
    from data2vec.models.audio.heads import (
        Data2VecAudioForAudioFrameClassification as Data2VecAudioForAudioFrameClassification,
    )
    from data2vec.models.audio.heads import Data2VecAudioForCTC as Data2VecAudioForCTC
    from data2vec.models.audio.heads import (
        Data2VecAudioForSequenceClassification as Data2VecAudioForSequenceClassification,
    )
    from data2vec.models.audio.heads import Data2VecAudioForXVector as Data2VecAudioForXVector
    from data2vec.models.audio.model import Data2VecAudioModel as Data2VecAudioModel
    from data2vec.models.audio.model import Data2VecAudioPreTrainedModel as Data2VecAudioPreTrainedModel
    from data2vec.models.text.config import Data2VecTextConfig as Data2VecTextConfig
    from data2vec.models.text.heads import Data2VecTextForCausalLM as Data2VecTextForCausalLM
    from data2vec.models.text.heads import Data2VecTextForMaskedLM as Data2VecTextForMaskedLM
    from data2vec.models.text.heads import Data2VecTextForMultipleChoice as Data2VecTextForMultipleChoice
    from data2vec.models.text.heads import Data2VecTextForQuestionAnswering as Data2VecTextForQuestionAnswering
    from data2vec.models.text.heads import (
        Data2VecTextForSequenceClassification as Data2VecTextForSequenceClassification,
    )
    from data2vec.models.text.heads import Data2VecTextForTokenClassification as Data2VecTextForTokenClassification
    from data2vec.models.text.model import Data2VecTextModel as Data2VecTextModel
    from data2vec.models.text.model import Data2VecTextPreTrainedModel as Data2VecTextPreTrainedModel
    from data2vec.models.v2.audio import Data2Vec2AudioModel as Data2Vec2AudioModel
    from data2vec.models.v2.config import Data2Vec2AudioConfig as Data2Vec2AudioConfig
    from data2vec.models.v2.config import Data2Vec2TextConfig as Data2Vec2TextConfig
    from data2vec.models.v2.config import Data2Vec2VisionConfig as Data2Vec2VisionConfig
    from data2vec.models.v2.heads import (
        Data2Vec2AudioForAudioFrameClassification as Data2Vec2AudioForAudioFrameClassification,
    )
    from data2vec.models.v2.heads import Data2Vec2AudioForCTC as Data2Vec2AudioForCTC
    from data2vec.models.v2.heads import (
        Data2Vec2AudioForSequenceClassification as Data2Vec2AudioForSequenceClassification,
    )
    from data2vec.models.v2.heads import Data2Vec2AudioForXVector as Data2Vec2AudioForXVector
    from data2vec.models.v2.heads import Data2Vec2TextForMultipleChoice as Data2Vec2TextForMultipleChoice
    from data2vec.models.v2.heads import Data2Vec2TextForQuestionAnswering as Data2Vec2TextForQuestionAnswering
    from data2vec.models.v2.heads import (
        Data2Vec2TextForSequenceClassification as Data2Vec2TextForSequenceClassification,
    )
    from data2vec.models.v2.heads import Data2Vec2TextForTokenClassification as Data2Vec2TextForTokenClassification
    from data2vec.models.v2.heads import Data2Vec2VisionForImageClassification as Data2Vec2VisionForImageClassification
    from data2vec.models.v2.heads import (
        Data2Vec2VisionForSemanticSegmentation as Data2Vec2VisionForSemanticSegmentation,
    )
    from data2vec.models.v2.text import Data2Vec2TextModel as Data2Vec2TextModel
    from data2vec.models.v2.vision import Data2Vec2VisionModel as Data2Vec2VisionModel
    from data2vec.models.vision.config import Data2VecVisionConfig as Data2VecVisionConfig
    from data2vec.models.vision.heads import (
        Data2VecVisionForImageClassification as Data2VecVisionForImageClassification,
    )
    from data2vec.models.vision.heads import (
        Data2VecVisionForSemanticSegmentation as Data2VecVisionForSemanticSegmentation,
    )
    from data2vec.models.vision.model import Data2VecVisionModel as Data2VecVisionModel
    from data2vec.models.vision.model import Data2VecVisionPreTrainedModel as Data2VecVisionPreTrainedModel
    from data2vec.objectives.v1 import Data2VecObjective as Data2VecObjective
    from data2vec.objectives.v2 import Data2Vec2Objective as Data2Vec2Objective
    from data2vec.pipelines.pipeline import pipeline as pipeline
    from data2vec.processing.audio import Wav2Vec2FeatureExtractor as Wav2Vec2FeatureExtractor
    from data2vec.processing.ctc import Wav2Vec2CTCTokenizer as Wav2Vec2CTCTokenizer
    from data2vec.processing.speech import Wav2Vec2Processor as Wav2Vec2Processor
    from data2vec.processing.text import RobertaTokenizer as RobertaTokenizer
    from data2vec.processing.text import RobertaTokenizerFast as RobertaTokenizerFast
    from data2vec.processing.vision import BeitImageProcessor as BeitImageProcessor

_HOME = {  # public name -> the module that defines it
    "load_checkpoint": "data2vec.conversion.loading",
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
    "Data2Vec2AudioForCTC": "data2vec.models.v2.heads",
    "Data2Vec2AudioForSequenceClassification": "data2vec.models.v2.heads",
    "Data2Vec2AudioForAudioFrameClassification": "data2vec.models.v2.heads",
    "Data2Vec2AudioForXVector": "data2vec.models.v2.heads",
    "Data2Vec2TextForSequenceClassification": "data2vec.models.v2.heads",
    "Data2Vec2TextForTokenClassification": "data2vec.models.v2.heads",
    "Data2Vec2TextForQuestionAnswering": "data2vec.models.v2.heads",
    "Data2Vec2TextForMultipleChoice": "data2vec.models.v2.heads",
    "Data2Vec2VisionForImageClassification": "data2vec.models.v2.heads",
    "Data2Vec2VisionForSemanticSegmentation": "data2vec.models.v2.heads",
    "Data2Vec2Objective": "data2vec.objectives.v2",
    "BeitImageProcessor": "data2vec.processing.vision",
    "RobertaTokenizer": "data2vec.processing.text",
    "RobertaTokenizerFast": "data2vec.processing.text",
    "Wav2Vec2CTCTokenizer": "data2vec.processing.ctc",
    "Wav2Vec2FeatureExtractor": "data2vec.processing.audio",
    "Wav2Vec2Processor": "data2vec.processing.speech",
    "pipeline": "data2vec.pipelines.pipeline",
    "UserError": "data2vec.errors",
    "TFData2VecVisionModel": "data2vec.keras.model",
    "TFData2VecVisionForImageClassification": "data2vec.keras.model",
    "TFData2VecVisionForSemanticSegmentation": "data2vec.keras.model",
    "Data2VecAudioForCTC": "data2vec.models.audio.heads",
    "Data2VecAudioForSequenceClassification": "data2vec.models.audio.heads",
    "Data2VecAudioForAudioFrameClassification": "data2vec.models.audio.heads",
    "Data2VecAudioForXVector": "data2vec.models.audio.heads",
    "Data2VecTextForMaskedLM": "data2vec.models.text.heads",
    "Data2VecTextForCausalLM": "data2vec.models.text.heads",
    "Data2VecTextForSequenceClassification": "data2vec.models.text.heads",
    "Data2VecTextForMultipleChoice": "data2vec.models.text.heads",
    "Data2VecTextForTokenClassification": "data2vec.models.text.heads",
    "Data2VecTextForQuestionAnswering": "data2vec.models.text.heads",
    "Data2VecVisionForImageClassification": "data2vec.models.vision.heads",
    "Data2VecVisionForSemanticSegmentation": "data2vec.models.vision.heads",
    "Data2VecAudioPreTrainedModel": "data2vec.models.audio.model",
    "Data2VecTextPreTrainedModel": "data2vec.models.text.model",
    "Data2VecVisionPreTrainedModel": "data2vec.models.vision.model",
    "AutoConfig": "data2vec.auto",
    "AutoModel": "data2vec.auto",
    "AutoModelForPreTraining": "data2vec.auto",
    "AutoModelForCTC": "data2vec.auto",
    "AutoModelForAudioClassification": "data2vec.auto",
    "AutoModelForAudioFrameClassification": "data2vec.auto",
    "AutoModelForAudioXVector": "data2vec.auto",
    "AutoModelForMaskedLM": "data2vec.auto",
    "AutoModelForCausalLM": "data2vec.auto",
    "AutoModelForSequenceClassification": "data2vec.auto",
    "AutoModelForMultipleChoice": "data2vec.auto",
    "AutoModelForTokenClassification": "data2vec.auto",
    "AutoModelForQuestionAnswering": "data2vec.auto",
    "AutoModelForImageClassification": "data2vec.auto",
    "AutoModelForSemanticSegmentation": "data2vec.auto",
    "AutoProcessor": "data2vec.auto",
    "AutoTokenizer": "data2vec.auto",
    "AutoFeatureExtractor": "data2vec.auto",
    "AutoImageProcessor": "data2vec.auto",
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
