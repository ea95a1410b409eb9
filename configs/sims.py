r"""CH-SIMS: sentiment of Chinese video clips from text, audio and vision.

  python -m dream_jax.main --config=configs/sims.py --config.data.manual_dir=FOLDER

FOLDER holds MMSA's `unaligned_39.pkl`. Without it the command says what it looked for and how to get it. No run on the
real file has been made by us, so there is no result to quote.
"""

from dream_jax.config.default import get_default
from dream_jax.errors import UserError


def get_config(variant: str = ''):
  """The config; it has no variants."""
  if variant:
    raise UserError(f'configs/sims.py has no variant {variant!r}; expected none')
  config = get_default()
  config.name = 'sims'
  config.data.name = 'ch_sims/unaligned'
  config.num_seeds = 5
  config.model.width = 64
  config.model.hidden = 128
  config.optimizer.learning_rate = 2e-3
  config.train.epochs = 40
  config.train.num_evals = 10
  config.train.validation_draws = 2
  config.protocols = ('modality/zeros', 'modality/noise', 'subset/zeros', 'imbalanced/zeros', 'frames/zeros')
  return config
