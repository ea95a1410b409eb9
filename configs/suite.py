r"""A suite: many data sets in one study, and what they say together.

  python -m dream_jax.main --mode=study --config=configs/suite.py --config.suite.folders="('DIR_1', 'DIR_2')"

trains DREAM and eleven other methods on spoken and written digits and on every folder of your own data (see
docs/your_data.md), with the settings of `configs/npz.py` for all. A data set of fewer than 3,000 samples is divided
into training, validation and test samples five times, four seeds each; a larger one keeps its division and has twenty
seeds. `:quick` is a smoke test. A killed suite goes on where it was; another folder or method makes only what is new.

Built-in data sets are named in `--config.suite.data="('digits', 'av_digits')"`, their options in `suite.options`.
"""

from dream_jax.config.default import get_own_data
from dream_jax.errors import UserError

METHODS = (
  'concat+dropout',
  'late+dropout',
  'late-mlp+dropout',
  'momke-blind',
  'mmpareto+dropout',
  'ogm-ge+dropout',
  'valuation+dropout',
  'hme',
  'concat',
  'majority',
  'oracle+dropout',
)
PROTOCOLS = (
  *(f'{kind}/{fill}' for kind in ('modality', 'subset') for fill in ('zeros', 'noise', 'swap')),
  *(f'{kind}/{fill}' for kind in ('frames', 'block') for fill in ('zeros', 'noise')),
)


def get_config(variant: str = ''):
  """The config; `variant` is '' or 'quick'."""
  config = get_own_data()
  config.name = 'suite'
  config.controls = ()
  config.suite.data = ('digits',)
  config.study.methods = METHODS
  config.study.peek = config.study.valuation = False
  config.protocols = PROTOCOLS
  config.num_seeds = 20
  if variant == 'quick':
    config.num_seeds = 4
    config.suite.divisions = 2
    config.train.epochs = 4
    config.train.num_evals = 2
    config.study.methods = ('concat+dropout', 'late+dropout', 'majority')
    config.protocols = ('modality/zeros', 'modality/noise')
  elif variant:
    raise UserError(f'configs/suite.py has no variant {variant!r}; expected quick or none')
  return config
