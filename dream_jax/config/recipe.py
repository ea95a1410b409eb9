"""Everything a run needs, as one tree of frozen dataclasses; a ConfigDict becomes a Recipe at the edge, once."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from dream_jax.errors import UserError, did_you_mean
from dream_jax.missingness.missing import FILLS, FRAME_KINDS, Missing
from dream_jax.missingness.protocols import PROTOCOLS
from dream_jax.missingness.regimes import FORMS, parse_regime
from dream_jax.models.dream.dream import DreamSettings
from dream_jax.models.dream.losses import LossWeights
from dream_jax.models.registry import Method, find_method
from dream_jax.settings import from_config, rule_of, setting, varying

# Fields that change how a run is executed, not what it computes: a workdir may be continued with other values.
# Where data lie is of that kind; what they are is compared by itself.
EXECUTION_FIELDS = (
  'data.tfds_dir',
  'data.manual_dir',
  'data.dir',
  'mesh',
  'parallel',
  'compile_cache',
  'train.checkpoint_seconds',
  'train.eval_batch_size',
  'train.data_path',
  'study',
  'suite',
  'plan',
)


# A plan pretends that there are so many; JAX needs seconds to make more.
MOST_DEVICES = 4096
# Runs that train side by side in one program.
_MOST_RUNS = 10_000
# Of the last run, too: seeds travel as 32 bits, some of them signed.
_MOST_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Which data set, and where its files lie."""

  name: str = setting('', 'data set; --mode=list shows them')
  tfds_dir: str | None = setting(
    None, 'prepared data sets; ~/tensorflow_datasets if not set', filled=True, is_path=True
  )
  manual_dir: str | None = setting(None, 'folder with the files that you downloaded', filled=True, is_path=True)
  dir: str | None = setting(None, "folder of your own data, for data.name = 'folder'", filled=True, is_path=True)
  options: dict[str, Any] = setting({}, 'options of the data set', hashed=False)
  division: int = setting(
    0,
    'which random division of all samples into splits of these sizes; 0 for the one that the data have',
    least=0,
    most=_MOST_SEED,
  )


@dataclasses.dataclass(frozen=True)
class ModelSettings(DreamSettings):
  """The method under study and the sizes that it shares with its controls."""

  name: str = setting('dream', 'the method under study; --mode=list shows them')


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """AdamW with linear warm-up and cosine decay to zero; a running average of the parameters is what is used."""

  learning_rate: float = setting(3e-3, 'at its peak', least=1e-12, most=100, varies=True)
  weight_decay: float = setting(
    1e-3, 'share of a weight that a step takes off, times the rate', least=0, most=1e4, varies=True
  )
  warmup_fraction: float = setting(0.05, 'share of all steps', least=0, below=1)
  clip_norm: float = setting(1.0, 'most that the global norm of gradients may be', least=1e-6, most=1e9)
  average_decay: float = setting(
    0.99, 'of the running average of parameters that is validated and used; 0 for none', least=0, below=1
  )


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """Length of training, and how often it is measured."""

  batch_size: int = setting(64, 'samples a step and seed, over all devices and hosts', least=1, most=1_000_000)
  epochs: int = setting(60, 'passes over the training set', least=1, most=1_000_000)
  least_steps: int = setting(
    1, 'steps that training has at least, however few the samples: more passes, for every method', least=1, most=10**9
  )
  num_evals: int = setting(12, 'how many times validation is read; the best of them is selected', least=1, most=100_000)
  validation_draws: int = setting(
    4, 'how many draws of missingness one reading of the validation set averages', least=1, most=1000
  )
  eval_batch_size: int = setting(
    0,
    'samples a step of evaluation, 0 for what suits the device; any value gives the same metrics',
    least=0,
    most=10**7,
  )
  data_path: Literal['auto', 'device', 'host'] = setting(
    'auto',
    "where batches are made: on the 'device' that holds the training data, or on the 'host' by tf.data; 'auto' takes"
    ' the device where they fit. The batches are the same',
  )
  checkpoint_seconds: float = setting(
    20.0, 'pause between checkpoints; the end of a method always saves one', least=0, most=1e9
  )


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """Devices along the two axes of the mesh; -1 takes what is left."""

  seed: int = setting(0, 'devices that share the seeds; 0 for as many as divide them', least=-1, most=MOST_DEVICES)
  data: int = setting(-1, 'devices that share the rows of a batch', least=-1, most=MOST_DEVICES, never=(0,))


@dataclasses.dataclass(frozen=True)
class InjectSettings:
  """Modality dropout in training, known to the trainer and hidden from the model."""

  rate: float = setting(0.7, 'every sample draws its own from U(0, rate)', least=0, below=1, varies=True)
  fills: tuple[str, ...] = setting(
    ('zeros', 'noise', 'swap'), 'every removed slot draws one', choices=FILLS, filled=True
  )
  parts: tuple[str, ...] = setting(
    (),
    'what sequences and tokens that are left lose besides: each draws nothing, single frames or a contiguous block;'
    ' () for whole modalities only',
    choices=FRAME_KINDS,
    unique=True,
  )

  def missing(self) -> Missing:
    """As a specification of missingness."""
    return Missing('modality', rate=self.rate, rate_law='uniform', fills=self.fills, parts=self.parts)


# Settings that enter a program as numbers, not as shapes or branches, and what each may be.
_GROUPS = {'optimizer': OptimizerSettings, 'model': ModelSettings, 'inject': InjectSettings, 'losses': LossWeights}
_VECTOR_RULES = {
  f'{group}.{name}': rule_of(cls.__dataclass_fields__[name]) for group, cls in _GROUPS.items() for name in varying(cls)
}
VECTOR_FIELDS = tuple(_VECTOR_RULES)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
  """A random search of settings before a study: all points of a method train in one program, validation selects."""

  points: int = setting(
    0, "how many; the config's own settings are the first. 0 searches nothing", least=0, most=_MOST_RUNS
  )
  seeds: int = setting(1, 'runs a point, whose scores are averaged', least=1, most=_MOST_RUNS)
  fields: tuple[tuple[str, str, float, float], ...] = setting(
    (), "(field, 'log' or 'linear', lowest, highest) of every setting that is drawn"
  )

  def contradictions(self) -> Iterator[str]:
    """Values that do not go together, as messages that begin with a field."""
    if self.points and not self.fields:
      wanted = "(field, 'log' or 'linear', lowest, highest)"
      yield f'points is {self.points} and config.study.search.fields is empty; expected {wanted}'
    if self.points * self.seeds > _MOST_RUNS:
      yield f'points x seeds is {self.points * self.seeds}; expected at most {_MOST_RUNS} runs'
    names = [name for name, *_ in self.fields]
    for name, scale, low, high in self.fields:
      if name not in VECTOR_FIELDS:
        near_ones = did_you_mean(name, VECTOR_FIELDS)
        yield f'fields: {name!r} cannot be searched; expected one of {", ".join(VECTOR_FIELDS)}; {near_ones}'
        continue
      rule = _VECTOR_RULES[name]
      if not (rule.holds(low) and rule.holds(high)):
        yield f'fields: {name} from {low!r} to {high!r}; expected {rule.numbers}'
      if scale not in ('log', 'linear') or low > high or (scale == 'log' and low <= 0):
        wanted = "'log' or 'linear', then lowest and highest, for 'log' above 0"
        yield f'fields: {name} is {(scale, low, high)}; expected {wanted}'
      if names.count(name) > 1:
        yield f'fields name {name} twice; expected each once'


@dataclasses.dataclass(frozen=True)
class StudySettings:
  """Many methods under many training regimes: what --mode=study compares."""

  methods: tuple[str, ...] = setting(
    (),
    'names; all share data, seeds, budget and protocols. The method under study, model.name, comes first',
    unique=True,
  )
  regimes: tuple[str, ...] = setting(
    ('complete',), f'what is missing from the training data: {FORMS}', filled=True, unique=True
  )
  peek: bool = setting(True, 'show, apart, what selecting checkpoints on the test split would have given')
  valuation: bool = setting(True, 'measure what each modality is worth to each method')
  search: SearchSettings = SearchSettings()

  def contradictions(self) -> Iterator[str]:
    """Regimes that no data set has, as messages that begin with a field."""
    for name in self.regimes:
      try:
        parse_regime(name)
      except UserError as error:
        yield f'regimes: {error}'


@dataclasses.dataclass(frozen=True)
class SuiteSettings:
  """Several data sets in one study, whose results are put together; --mode=study makes it where any is named."""

  data: tuple[str, ...] = setting((), 'data sets, as data.name takes them', unique=True)
  folders: tuple[str, ...] = setting((), 'folders of your own data', unique=True)
  options: dict[str, Any] = setting({}, 'options of a data set, by its name', hashed=False)
  divisions: int = setting(
    5, 'random divisions of every small data set; num_seeds are shared among them', least=1, most=100
  )
  divided_below: int = setting(
    3000, 'samples below which a data set is small; a larger one keeps its own division', least=0, most=10**9
  )
  margin: float = setting(0.005, 'differences of the metric as small as this do not matter', least=0, most=1e6)

  def contradictions(self) -> Iterator[str]:
    """Options of what is not there, as messages that begin with a field."""
    for name in self.options:
      if name not in self.data:
        yield f'options: {name!r} is none of suite.data; {did_you_mean(name, self.data or ("none",))}'


@dataclasses.dataclass(frozen=True)
class PlanSettings:
  """What --mode=plan predicts."""

  devices: tuple[int, ...] = setting(
    (1, 8, 64, 256), 'numbers of devices to plan for', least=1, most=MOST_DEVICES, filled=True
  )


@dataclasses.dataclass(frozen=True)
class Recipe:
  """One run: data, methods, training and evaluation."""

  name: str = setting('', 'what the report is called')
  seed: int = setting(0, 'first seed; run i has seed + i', least=0, most=_MOST_SEED)
  num_seeds: int = setting(10, 'runs that train together in one compiled program', least=1, most=_MOST_RUNS)
  data: DataSettings = DataSettings()
  model: ModelSettings = ModelSettings()
  losses: LossWeights = LossWeights()
  controls: tuple[str, ...] = setting(
    ('concat+dropout', 'late+dropout', 'late-mlp+dropout', 'concat', 'unimodal', 'majority', 'oracle+dropout'),
    'methods that are trained beside it, same budget, for comparison',
    unique=True,
  )
  inject: InjectSettings = InjectSettings()
  train_missing: Missing = Missing()
  protocols: tuple[str, ...] = setting(
    ('modality/zeros', 'modality/noise', 'modality/swap', 'subset/zeros', 'subset/swap', 'imbalanced/zeros'),
    'what is tested: KIND/FILL, --mode=list shows them',
    choices=PROTOCOLS.keys(),
    unique=True,
  )
  optimizer: OptimizerSettings = OptimizerSettings()
  train: TrainSettings = TrainSettings()
  study: StudySettings = StudySettings()
  suite: SuiteSettings = SuiteSettings()
  plan: PlanSettings = PlanSettings()
  compile_cache: str = setting(
    '', "folder of compiled programs: '' for WORKDIR/xla_cache, 'off' for none", is_path=True
  )
  mesh: MeshSettings = MeshSettings()
  parallel: Literal['jit', 'pmap'] = setting(
    'jit', "how the step is mapped over devices: 'jit', or 'pmap' (rows of a batch, one host)"
  )

  def contradictions(self) -> Iterator[str]:
    """Values that do not go together, as messages that begin with a field."""
    if self.seed + self.num_seeds - 1 > _MOST_SEED:
      last = self.seed + self.num_seeds - 1
      yield f'seed is {self.seed}, so the last of {self.num_seeds} seeds is {last}; expected at most {_MOST_SEED}'

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seed of every vectorised run."""
    return tuple(range(self.seed, self.seed + self.num_seeds))

  @property
  def methods(self) -> tuple[str, ...]:
    """Names of all methods in the order they are trained, the one under study first, none twice."""
    return tuple(dict.fromkeys((self.model.name, *self.controls)))


def recipe_from_config(config: Any) -> Recipe:
  """The checked recipe of a ConfigDict.

  Raises:
    UserError: an unknown field or method, a wrong type, or a value outside its range; the message names the field.
  """
  recipe = from_config(Recipe, config)
  named = {'model.name': (recipe.model.name,), 'controls': recipe.controls, 'study.methods': recipe.study.methods}
  for field, names in named.items():
    for name in names:
      try:
        recipe_of(find_method(name), recipe)
      except UserError as error:
        raise UserError(f'config.{field}: {error}') from error
  return recipe


def recipe_of(method: Method, recipe: Recipe) -> Recipe:
  """The recipe with the settings that a method has for itself.

  Raises:
    UserError: an unknown field, a wrong type, or a value outside its range.
  """
  for path, value in method.settings:
    group, _, field = path.partition('.')
    old = getattr(recipe, group)
    fields = {f.name: getattr(old, f.name) for f in dataclasses.fields(old)}
    try:
      made = from_config(type(old), {**fields, field: value}, f'config.{group}')
    except UserError as error:
      raise UserError(f'method {method.name!r}: {error}') from error
    if path == 'model.name':
      raise UserError(f'method {method.name!r} names another method in its brackets; expected {value}[...]')
    recipe = dataclasses.replace(recipe, **{group: made})
  return recipe
