r"""CMU-MOSI: sentiment of video utterances from text, audio and vision.

  python -m dream_jax.main --config=configs/mosi.py --config.data.manual_dir=FOLDER

FOLDER holds MMSA's `aligned_50.pkl` (`configs/mosi.py:unaligned`: `unaligned_50.pkl`). Without it the command says what
it looked for and how to get it. No run on these files has been made by us, so there is no result to quote.

  python -m dream_jax.main --config=configs/mosi.py:utterance --config.data.manual_dir=FOLDER

uses one feature vector per utterance and modality instead (`mosi_utterance.npz`): negative or not, on the videos that
no feature extractor was trained on. `:bclstm` is the split of bc-LSTM, `:official` the official folds with text and
audio only; `--config.data.options.task` is 'binary', 'regression' or 'multiclass'.
"""

from dream_jax.config.default import get_default
from dream_jax.errors import UserError


def get_config(variant: str = ''):
  """The config; `variant` is '' or 'aligned', 'unaligned', 'utterance', 'bclstm' or 'official'."""
  config = get_default()
  config.name = 'mosi'
  config.num_seeds = 5
  config.protocols = ('modality/zeros', 'modality/noise', 'subset/zeros', 'imbalanced/zeros', 'frames/zeros')
  if variant in ('', 'aligned', 'unaligned'):
    config.data.name = f'cmu_mosi/{variant or "aligned"}'
    config.model.width = 64
    config.model.hidden = 128
    config.optimizer.learning_rate = 2e-3
    config.train.epochs = 40
    config.train.num_evals = 10
    config.train.validation_draws = 2
  elif variant in ('utterance', 'bclstm', 'official'):
    config.name = f'mosi_{variant}'
    config.data.name = f'mosi_utterance/{"clean" if variant == "utterance" else variant}'
    config.data.options.task = 'binary'
    config.data.options.text = 'minilm'
    config.num_seeds = 10
    # A few hundred samples: chosen among eleven settings on the validation splits of `utterance` and `official`.
    config.optimizer.weight_decay = 3.0
    config.inject.rate = 0.3
    config.train.validation_draws = 8
    config.protocols = ('modality/zeros', 'modality/noise', 'subset/zeros', 'imbalanced/zeros')
  else:
    raise UserError(
      f'configs/mosi.py has no variant {variant!r}; expected aligned, unaligned, utterance, bclstm or official'
    )
  return config
