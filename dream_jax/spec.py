"""What a data set is, as models see it: ordered modalities and one target.

Dimension letters used throughout the package: B batch, M modalities, T time, D feature width, C outputs, S seeds.
"""

import dataclasses
import re

from dream_jax.errors import UserError

MODALITY_KINDS = ('sequence', 'vector', 'tokens', 'image')
TASKS = ('regression', 'binary', 'multiclass', 'multilabel')
DATA_KINDS = ('real', 'synthetic')
_RANKS = {'sequence': 2, 'vector': 1, 'tokens': 1, 'image': 3}

# Names of modalities are the user's. Features of samples, inputs of models and keys of results hold them beside names
# of ours, so they are plain words, and these few are taken.
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
TAKEN = ('id', 'label', 'oracle_mask')
# What networks put behind the key of a modality, see `models.dream.recognition`.
KEY_ENDINGS = ('table', 'odds', 'trust', 'typicality')
_TAKEN_KEYS = ('natural_damage',)


@dataclasses.dataclass(frozen=True)
class ModalitySpec:
  """One modality: its kind and the static shape of one sample.

  Attributes:
    name: feature name in the data set; `<name>_length` is its length feature for sequences and tokens.
    kind: 'sequence' (shape [T, D]), 'vector' ([D]), 'tokens' ([T], integer ids) or 'image' ([H, W, C]).
    shape: shape of one sample, time padded or cut to T.
    vocab_size: number of token ids; tokens only.
    unk_id: the id that stands for a missing token; id 0 is padding.
    key: what networks call its parts; the name if empty. Users' own data have keys of ours: what a modality is called
      then changes neither the first parameters nor the results.
  """

  name: str
  kind: str
  shape: tuple[int, ...]
  vocab_size: int = 0
  unk_id: int = 1
  key: str = ''

  def __post_init__(self):
    if not _NAME.fullmatch(self.name) or self.name in TAKEN:
      raise UserError(
        f'a modality is called {self.name!r}; expected letters, digits and _, a letter first, and none of'
        f' {", ".join(TAKEN)}: choose another name'
      )
    if self.kind not in MODALITY_KINDS:
      raise UserError(f'modality {self.name!r} has kind {self.kind!r}; expected one of {", ".join(MODALITY_KINDS)}')
    if len(self.shape) != _RANKS[self.kind] or min(self.shape) < 1:
      raise UserError(
        f'modality {self.name!r} of kind {self.kind!r} has shape {self.shape};'
        f' expected {_RANKS[self.kind]} positive sizes'
      )
    if self.kind == 'tokens' and self.vocab_size < 2:
      raise UserError(f'modality {self.name!r} holds tokens but vocab_size is {self.vocab_size}; expected at least 2')

  @property
  def inside(self) -> str:
    """What networks call the parts of this modality."""
    return self.key or self.name

  @property
  def has_length(self) -> bool:
    """Whether samples carry a time length (`<name>_length`)."""
    return self.kind in ('sequence', 'tokens')

  @property
  def length_name(self) -> str:
    return f'{self.name}_length'


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """The contract between data and models.

  Attributes:
    name: name of the data set.
    modalities: at least two, in a fixed order: axis M of every output follows it.
    task: 'regression' (label float32 [B]), 'binary' (int32 [B] in {0, 1}), 'multiclass' (int32 [B]) or
      'multilabel' (float32 [B, C] in {0, 1}).
    num_outputs: C, the width of a prediction: 1 for regression and binary, else the number of classes.
    data_kind: 'real' or 'synthetic'; every output repeats it.
    class_names: names of the classes, or empty.
    label_range: (lowest, highest) label of a regression task; Acc-7 and its kin need it.
  """

  name: str
  modalities: tuple[ModalitySpec, ...]
  task: str
  num_outputs: int
  data_kind: str
  class_names: tuple[str, ...] = ()
  label_range: tuple[float, float] = (0.0, 0.0)

  def __post_init__(self):
    if self.task not in TASKS:
      raise UserError(f'data set {self.name!r} has task {self.task!r}; expected one of {", ".join(TASKS)}')
    if self.data_kind not in DATA_KINDS:
      raise UserError(f'data set {self.name!r} has data kind {self.data_kind!r}; expected real or synthetic')
    if len(self.modalities) < 2:
      raise UserError(f'data set {self.name!r} has {len(self.modalities)} modalities; expected at least 2')
    names = self.names
    if len(set(names)) != len(names):
      raise UserError(f'data set {self.name!r} names a modality twice: {", ".join(names)}')
    for m in self.modalities:
      if m.has_length and m.length_name in names:
        raise UserError(
          f'data set {self.name!r}: modality {m.length_name} is called like the lengths of {m.name}; rename it'
        )
    self._check_keys()

  def _check_keys(self) -> None:
    """Refuses keys by which parts of networks would get one name."""
    seen: dict[str, str] = {}
    for m in self.modalities:
      for part in (m.inside, *(f'{m.inside}_{ending}' for ending in KEY_ENDINGS)):
        other = seen.setdefault(part, m.name)
        if other != m.name or part in _TAKEN_KEYS:
          what = f'modality {other}' if other != m.name else 'a part of ours'
          raise UserError(
            f'data set {self.name!r}: networks would give modality {m.name} the name {part} of {what}; give it a key of'
            " its own: ModalitySpec(..., key='slot0')"
          )

  @property
  def names(self) -> tuple[str, ...]:
    """Modality names in order."""
    return tuple(m.name for m in self.modalities)

  @property
  def num_modalities(self) -> int:
    return len(self.modalities)

  def index(self, name: str) -> int:
    """Position of a modality; an unknown name is an error that lists the known ones."""
    if name not in self.names:
      raise UserError(f'unknown modality {name!r}; {self.name} has {", ".join(self.names)}')
    return self.names.index(name)
