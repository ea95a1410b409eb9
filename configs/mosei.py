r"""CMU-MOSEI: sentiment of video utterances from text, audio and vision, full benchmark shapes.

  python -m dream_jax.main --config=configs/mosei.py --config.data.manual_dir=FOLDER

FOLDER holds MMSA's `aligned_50.pkl` (`configs/mosei.py:unaligned`: `unaligned_50.pkl`), which has to be requested from
the authors of the data set. Without it the command says what it looked for and how to get it. No run on the real files
has been made by us, so there is no result to quote.

  python -m dream_jax.main --config=configs/mosei.py:standin

runs the same shapes on a small SYNTHETIC stand-in: a test of code and speed, not of methods.
"""

from dream_jax.config.default import get_default
from dream_jax.errors import UserError


def get_config(variant: str = ''):
  """The config; `variant` is '' or 'aligned', 'unaligned', or 'standin'."""
  config = get_default()
  config.name = 'mosei'
  config.data.name = 'cmu_mosei/unaligned' if variant == 'unaligned' else 'cmu_mosei/aligned'
  config.num_seeds = 5
  config.model.width = 64
  config.model.hidden = 128
  config.optimizer.learning_rate = 2e-3
  config.train.epochs = 20
  config.train.num_evals = 10
  config.train.validation_draws = 1
  config.protocols = ('modality/zeros', 'modality/noise', 'subset/zeros', 'imbalanced/zeros', 'frames/zeros')
  if variant == 'standin':
    config.name = 'mosei_standin'
    config.data.name = 'mosei_standin'
    config.num_seeds = 2
    config.train.epochs = 6
    config.train.num_evals = 3
    config.controls = ('concat+dropout', 'majority')
    config.protocols = ('modality/noise', 'subset/zeros')
  elif variant not in ('', 'aligned', 'unaligned'):
    raise UserError(f'configs/mosei.py has no variant {variant!r}; expected aligned, unaligned or standin')
  return config
