r"""IEMOCAP: emotion of acted utterances from vectors of text, audio and vision; four or six classes, five folds.

  python -m dream_jax.main --config=configs/iemocap.py --config.data.manual_dir=FOLDER

FOLDER holds the files of GCNet, of DialogueRNN, DialogueGCN or MMGCN, or of MMIN; without them the command says what it
looked for and how to get it. `configs/iemocap.py:six` takes the six classes. Fold k tests on session k of five, on
speakers that training has not heard; results are usually averaged over the folds, each in a workdir of its own:

  python -m dream_jax.main --config=configs/iemocap.py --config.data.manual_dir=FOLDER \
      --config.data.options.fold=1 --workdir=runs/iemocap_four_1

The widths are GCNet's; DialogueRNN's files need --config.data.options.widths="(100, 100, 512)", MMGCN's
"(100, 1582, 342)", MMIN's "(1024, 130, 342)". No run on the real files has been made by us, so there is no result to
quote.
"""

from dream_jax.config.default import get_default
from dream_jax.errors import UserError


def get_config(variant: str = ''):
  """The config; `variant` is '' or 'four', or 'six'."""
  config = get_default()
  config.name = 'iemocap_four'
  config.data.name = 'iemocap/four'
  config.data.options.fold = 5  # the session that is tested on
  # GCNet's feature folders, and the widths of text, audio and vision.
  config.data.options.features = ('deberta-large-4-UTT', 'wav2vec-large-c-UTT', 'manet_UTT')
  config.data.options.widths = (1024, 512, 1024)
  config.num_seeds = 5
  config.model.width = 64
  config.model.hidden = 128
  config.optimizer.learning_rate = 2e-3
  config.train.epochs = 30
  config.train.num_evals = 10
  config.protocols = ('modality/zeros', 'modality/noise', 'subset/zeros')
  if variant == 'six':
    config.name = 'iemocap_six'
    config.data.name = 'iemocap/six'
  elif variant not in ('', 'four'):
    raise UserError(f'configs/iemocap.py has no variant {variant!r}; expected four or six')
  return config
