r"""Generated data whose informativeness is known, sample by sample and modality by modality.

  python -m dream_jax.main --config=configs/synthetic.py

Scores the estimated contributions against the truth. Synthetic: no figure from it says anything about real data.
"""

from dream_jax.config.default import get_default
from dream_jax.errors import UserError


def get_config(variant: str = ''):
  """The config; it has no variants."""
  if variant:
    raise UserError(f'configs/synthetic.py has no variant {variant!r}; expected none')
  config = get_default()
  config.name = 'synthetic'
  config.data.name = 'synthetic'
  config.optimizer.learning_rate = 5e-3
  config.train.epochs = 30
  config.controls = ('concat+dropout', 'late+dropout', 'majority', 'oracle+dropout')
  config.protocols = ('modality/zeros', 'modality/noise', 'subset/swap')
  return config
