r"""Studies: every method, every protocol, many seeds, one command.

  python -m dream_jax.main --mode=study --config=configs/study.py

compares them on spoken and written digits, real data that needs no download; `:regimes` trains on incomplete data, too.
`:incomplete` asks only that, of seven methods and an oracle, twenty seeds.

  python -m dream_jax.main --mode=study --config=configs/study.py:mosi --config.data.manual_dir=FOLDER

does so on CMU-MOSI utterances (`mosi_utterance.npz`, see docs/data.md), complete and incomplete training data, settings
of every method searched first; `:incomplete_bclstm` is `:incomplete` on the split of bc-LSTM. `:quick` is a smoke test
on the digits. A killed study goes on where it was.
"""

from dream_jax.config.default import get_default
from dream_jax.errors import UserError

METHODS = (
  'concat+dropout',
  'late+dropout',
  'late-mlp+dropout',
  'tfn+dropout',
  'lmf+dropout',
  'mult+dropout',
  'mmin',
  'tfr-net',
  'lnln',
  'p-rmf',
  'hme',
  'momke-blind',
  'ogm-ge+dropout',
  'mmpareto+dropout',
  'valuation+dropout',
  'concat',
  'unimodal',
  'majority',
  'momke',
  'oracle+dropout',
)
PROTOCOLS = tuple(
  f'{kind}/{fill}'
  for kind in ('modality', 'subset', 'imbalanced', 'frames', 'block')
  for fill in ('zeros', 'noise', 'swap')
)
# Of these more seeds are affordable: what comes out best on complete data, plain concatenation, and an oracle.
FEWER = (
  'concat+dropout',
  'late+dropout',
  'late-mlp+dropout',
  'momke-blind',
  'mmpareto+dropout',
  'hme',
  'oracle+dropout',
)
REGIMES = ('complete', 'modality/0.3', 'modality/0.5', 'modality/0.7', 'imbalanced/0.5')


def get_config(variant: str = ''):
  """The config; `variant` is '' or 'digits', 'regimes', 'incomplete', 'mosi', 'incomplete_bclstm' or 'quick'."""
  config = get_default()
  config.controls = ()
  config.study.methods = METHODS
  config.protocols = PROTOCOLS
  config.name = f'study_{variant or "digits"}'
  # The data, and settings that suit them.
  if variant in ('', 'digits', 'regimes', 'incomplete', 'quick'):
    config.data.name = 'digits'
    config.data.options.seed = 20240  # of the pairing and the splits
    config.optimizer.learning_rate = 1e-2
    config.inject.rate = 0.5
    # A budget for a laptop; tokens are those of MulT and TFR-Net, which would take most of the time otherwise.
    config.train.epochs = 40
    config.train.num_evals = 10
    config.model.max_tokens = 3
  elif variant in ('mosi', 'incomplete_bclstm'):
    config.data.name = f'mosi_utterance/{"clean" if variant == "mosi" else "bclstm"}'
    config.data.options.task = 'binary'
    config.data.options.text = 'minilm'
    # As configs/mosi.py:utterance, chosen on validation.
    config.optimizer.weight_decay = 3.0
    config.inject.rate = 0.3
    config.train.validation_draws = 8
  else:
    raise UserError(
      f'configs/study.py has no variant {variant!r}; expected digits, regimes, incomplete, mosi, incomplete_bclstm or '
      'quick'
    )
  # What is asked of them.
  if variant == 'regimes':
    config.study.regimes = REGIMES
    config.study.peek = config.study.valuation = False
  elif variant in ('incomplete', 'incomplete_bclstm'):
    config.num_seeds = 20
    config.study.methods = FEWER
    config.study.regimes = ('modality/0.5', 'imbalanced/0.5')
    config.study.peek = config.study.valuation = False
    config.protocols = tuple(f'{kind}/{fill}' for kind in ('modality', 'subset') for fill in ('zeros', 'noise', 'swap'))
  elif variant == 'mosi':
    config.study.regimes = REGIMES
    config.study.search.points = 10  # as many as seeds: the search runs in the program that trains
    config.study.search.fields = (  # around the settings above, for every method
      ('optimizer.learning_rate', 'log', 1e-3, 1e-2),
      ('optimizer.weight_decay', 'log', 0.1, 10.0),
      ('model.dropout', 'linear', 0.0, 0.5),
      ('model.head_dropout', 'linear', 0.0, 0.6),
      ('inject.rate', 'linear', 0.2, 0.7),
    )
  elif variant == 'quick':
    config.num_seeds = 2
    config.train.epochs = 6
    config.train.num_evals = 2
    config.study.methods = ('concat+dropout', 'late+dropout', 'unimodal', 'majority', 'oracle+dropout')
    config.study.regimes = ('complete', 'modality/0.5')
    config.study.search.points = 4
    config.study.search.fields = (('optimizer.learning_rate', 'log', 1e-3, 3e-2), ('inject.rate', 'linear', 0.2, 0.8))
    config.protocols = ('modality/noise', 'subset/swap')
  return config
