r"""Spoken and written digits: three real modalities of one label, shipped inside two pip packages.

  python -m dream_jax.main --config=configs/digits.py

Ten seeds of DREAM and seven controls, on real data that needs no download. docs/results.md has time and results on
two CPU cores. `configs/digits.py:quick` is a smoke test of a minute: two seeds, few epochs, two controls.
`configs/digits.py:repaired` pairs and splits the same recordings and images anew: a check on choices made with the
first pairing.
"""

from dream_jax.config.default import get_default
from dream_jax.errors import UserError


def get_config(variant: str = ''):
  """The config; `variant` is '', 'quick' or 'repaired'."""
  config = get_default()
  config.name = 'digits'
  config.data.name = 'digits'
  config.data.options.seed = 20240  # of the pairing and the splits
  config.optimizer.learning_rate = 1e-2
  config.inject.rate = 0.5
  if variant == 'quick':
    config.num_seeds = 2
    config.train.epochs = 8
    config.train.num_evals = 2
    config.controls = ('concat+dropout', 'majority')
    config.protocols = ('modality/noise', 'subset/swap')
  elif variant == 'repaired':
    config.name = 'digits_repaired'
    config.data.options.seed = 1
  elif variant:
    raise UserError(f'configs/digits.py has no variant {variant!r}; expected quick, repaired or none')
  return config
