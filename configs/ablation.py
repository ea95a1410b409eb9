r"""What each part of DREAM buys: the method without it, everything else equal, as a study.

  python -m dream_jax.main --mode=study --config=configs/ablation.py

trains DREAM, its ablations and the controls on spoken and written digits, twenty seeds each, and compares contributions
with exact Shapley values. With `--config.data.manual_dir=FOLDER`, `:mosi`, `:bclstm` and `:official` do so on CMU-MOSI
utterances, split in three ways, the last without vision (`mosi_utterance.npz`, see docs/data.md), and `:av_digits` on
digits heard and seen (`av_digits.npz`); `:synthetic` is SYNTHETIC data, `:quick` a smoke test.

An ablation is the name of a method with settings of its own in brackets; yours can stand beside them:
--config.study.methods="('dream[model.reconstruct=never]', 'dream[model.credit=leave_one_out, model.sharpness=1.0]')".
"""

from dream_jax.config.default import get_default
from dream_jax.errors import UserError

ABLATIONS = (
  'dream[model.recognise=False]',  # every slot counts as real
  'dream[model.agreement=False]',  # each slot is judged by itself
  'dream[model.frames=False]',  # a sequence is judged as a whole, gaps and all
  'dream[model.typicality=False]',  # what real content looks like is learnt from nothing
  'dream[model.assess=False]',  # the soft mask follows presence alone
  'dream[model.game=certainty]',  # a coalition is worth how sure it is, right or wrong
  'dream[model.credit=leave_one_out]',
  'dream[model.game=certainty, model.credit=confidence]',  # how sure it is alone; of the others it sees nothing
  'dream[model.reconstruct=never]',
  'dream[model.reconstruct=always]',
  'dream[model.fusion=hard_mask]',
  'dream[model.fusion=uniform]',
  'dream[model.fusion=posterior]',  # a mixture of the predictions of all coalitions
  'dream[losses.unimodal=0.0]',  # heads that learn from the coalitions alone
  'dream[losses.coalition=0.0]',
  "dream[inject.fills=('zeros',)]",  # training shows one kind of damage
)
CONTROLS = ('concat+dropout', 'late+dropout', 'late-mlp+dropout', 'oracle+dropout')


def get_config(variant: str = ''):
  """The config; `variant` is '' or 'digits', 'mosi', 'bclstm', 'official', 'av_digits', 'synthetic' or 'quick'."""
  config = get_default()
  config.num_seeds = 20
  config.controls = ()
  config.study.methods = (*ABLATIONS, *CONTROLS)
  config.study.peek = False
  if variant in ('', 'digits', 'quick'):
    config.name = 'ablation_digits'
    config.data.name = 'digits'
    config.data.options.seed = 20240  # of the pairing and the splits
    config.optimizer.learning_rate = 1e-2
    config.inject.rate = 0.5
    config.train.epochs = 40
    config.train.num_evals = 10
  if variant == 'quick':
    config.num_seeds = 2
    config.train.epochs = 4
    config.train.num_evals = 2
    config.study.methods = (*ABLATIONS[:2], ABLATIONS[-2], 'concat+dropout')
    config.protocols = ('modality/noise',)
  elif variant in ('mosi', 'bclstm', 'official'):
    config.name = f'ablation_{variant}'
    config.data.name = f'mosi_utterance/{"clean" if variant == "mosi" else variant}'
    config.data.options.task = 'binary'
    config.data.options.text = 'minilm'
    config.optimizer.weight_decay = 3.0
    config.inject.rate = 0.3
    config.train.validation_draws = 8
  elif variant == 'av_digits':
    config.name = 'ablation_av_digits'
    config.data.name = 'av_digits'
    config.optimizer.learning_rate = 5e-3
    config.inject.rate = 0.5
    config.train.epochs = 20
    config.train.num_evals = 10
    config.train.validation_draws = 2
  elif variant == 'synthetic':
    config.name = 'ablation_synthetic'
    config.data.name = 'synthetic'
  elif variant not in ('', 'digits'):
    raise UserError(
      f'configs/ablation.py has no variant {variant!r}; expected digits, mosi, bclstm, official, av_digits, synthetic '
      'or quick'
    )
  return config
