r"""Your own data: a folder with .npz or Parquet files, and a `dataset.toml` that says what they hold.

  python -m dream_jax.main --config=configs/npz.py --config.data.dir=DIR [--workdir=runs/MY_STUDY]

Five seeds of DREAM and its controls; `configs/npz.py:quick` is a first try: two seeds, few epochs, two controls. A
second data set needs a --workdir of its own. DIR/dataset.toml, for instance:

  name = "my_study"
  task = "multilabel"                  # regression, binary, multiclass or multilabel
  label = "tags"                       # the array (.npz) or column (Parquet) with the target
  classes = ["calm", "tired", "glad"]
  splits = { train = 0.7, validation = 0.1, test = 0.2 }
  group = "speaker"                    # optional: all samples of a speaker stay in one split

  [modalities]                         # two or more, in the order of every table; NAME = KIND
  eeg = "sequence"                     # [N, T, D], with eeg_length [N]
  pose = "vector"                      # [N, D]
  words = "tokens"                     # [N, T] ids, with words_length [N]; or { kind = "tokens", vocab_size = 5000 }
  face = "image"                       # [N, H, W] or [N, H, W, C]

Further keys, other forms of `splits`, Parquet and what counts as missing: see docs/your_data.md.
"""

from dream_jax.config.default import get_own_data
from dream_jax.errors import UserError


def get_config(variant: str = ''):
  """The config; `variant` is '' or 'quick'."""
  config = get_own_data()
  config.name = 'npz'
  config.data.name = 'folder'
  config.num_seeds = 5
  if variant == 'quick':
    config.num_seeds = 2
    config.train.epochs = 8
    config.train.num_evals = 2
    config.controls = ('concat+dropout', 'majority')
    config.protocols = ('modality/zeros', 'modality/noise')
  elif variant:
    raise UserError(f'configs/npz.py has no variant {variant!r}; expected quick or none')
  return config
