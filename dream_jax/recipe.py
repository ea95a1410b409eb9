"""Everything a run needs, as one tree of frozen dataclasses; a ConfigDict becomes a Recipe at the edge, once."""

import dataclasses
from typing import Any, Literal

from dream_jax.data.missing import Missing
from dream_jax.errors import UserError
from dream_jax.models.dream import DreamSettings
from dream_jax.models.dream_objective import LossWeights
from dream_jax.models.registry import Method, find_method
from dream_jax.settings import from_config

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
  'plan',
)


# A plan pretends that there are so many; JAX needs seconds to make more.
MOST_DEVICES = 4096


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Which data set, and where its files lie."""

  name: str
  tfds_dir: str | None = None
  manual_dir: str | None = None
  dir: str | None = None
  options: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class ModelSettings(DreamSettings):
  """The method under study and the sizes that it shares with its controls."""

  name: str = 'dream'


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """AdamW with linear warm-up and cosine decay to zero; a running average of the parameters is what is used."""

  learning_rate: float = 3e-3
  weight_decay: float = 1e-3
  warmup_fraction: float = 0.05
  clip_norm: float = 1.0
  average_decay: float = 0.99


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """Length of training, and how often it is measured.

  Attributes:
    batch_size: samples a step and seed, over all devices and hosts.
    epochs: passes over the training set.
    num_evals: how many times validation is read; the best of them is selected.
    validation_draws: how many draws of missingness one reading of the validation set averages.
    eval_batch_size: samples a step of evaluation, 0 for what suits the device; any value gives the same metrics.
    data_path: where batches are made: on the 'device' that holds the training data, or on the 'host' by tf.data; 'auto'
      takes the device where they fit. The batches are the same.
    checkpoint_seconds: pause between checkpoints; the end of a method always saves one.
  """

  batch_size: int = 64
  epochs: int = 60
  num_evals: int = 12
  validation_draws: int = 4
  eval_batch_size: int = 0
  data_path: Literal['auto', 'device', 'host'] = 'auto'
  checkpoint_seconds: float = 20.0


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """Devices along the two axes of the mesh; -1 takes what is left, seed = 0 as many as divide the seeds."""

  seed: int = 0
  data: int = -1


@dataclasses.dataclass(frozen=True)
class InjectSettings:
  """Modality dropout of training: every sample draws a rate from U(0, rate), every removed slot a fill."""

  rate: float = 0.7
  fills: tuple[str, ...] = ('zeros', 'noise', 'swap')

  def missing(self) -> Missing:
    """As a specification of missingness."""
    return Missing('modality', rate=self.rate, rate_law='uniform', fills=self.fills)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
  """A random search of settings before a study: all points of a method train in one program, validation selects.

  Attributes:
    points: how many; the config's own settings are the first. 0 searches nothing.
    seeds: runs a point, whose scores are averaged.
    fields: (field, 'log' or 'linear', lowest, highest) of every setting that is drawn; see `runs.VECTOR_FIELDS`.
  """

  points: int = 0
  seeds: int = 1
  fields: tuple[tuple[str, str, float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class StudySettings:
  """Many methods under many training regimes.

  Attributes:
    methods: names; all share data, seeds, budget and protocols. The method under study, `model.name`, comes first.
    regimes: what is missing from the training data, see `data.regimes`.
    peek: whether to show, apart, what selecting checkpoints on the test split would have given.
    valuation: whether to measure what each modality is worth to each method.
    search: of settings, under the first regime.
  """

  methods: tuple[str, ...] = ()
  regimes: tuple[str, ...] = ('complete',)
  peek: bool = True
  valuation: bool = True
  search: SearchSettings = SearchSettings()


@dataclasses.dataclass(frozen=True)
class PlanSettings:
  """What is planned for: numbers of devices."""

  devices: tuple[int, ...] = (1, 8, 64, 256)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """One run: data, methods, training and evaluation."""

  name: str
  seed: int
  num_seeds: int
  data: DataSettings
  model: ModelSettings
  losses: LossWeights
  controls: tuple[str, ...]
  inject: InjectSettings
  train_missing: Missing
  protocols: tuple[str, ...]
  optimizer: OptimizerSettings
  train: TrainSettings
  mesh: MeshSettings = MeshSettings()
  compile_cache: str = ''
  parallel: Literal['jit', 'pmap'] = 'jit'
  study: StudySettings = StudySettings()
  plan: PlanSettings = PlanSettings()

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
  recipe = _checked(from_config(Recipe, config))
  for method in (*recipe.methods, *recipe.study.methods):
    recipe_of(find_method(method), recipe)
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
      recipe = dataclasses.replace(
        recipe, **{group: from_config(type(old), {**fields, field: value}, f'config.{group}')}
      )
    except UserError as error:
      raise UserError(f'method {method.name!r}: {error}') from error
  return _checked(recipe) if method.settings else recipe


def _checked(recipe: Recipe) -> Recipe:
  """The recipe, if every value is in its range."""
  r, m, t, o, p = recipe, recipe.model, recipe.train, recipe.optimizer, recipe.mesh
  _require(0 <= r.seed < 2**31, 'seed', r.seed, 'an integer in [0, 2^31)')
  for field, value in (
    ('num_seeds', r.num_seeds),
    ('model.width', m.width),
    ('model.hidden', m.hidden),
    ('train.batch_size', t.batch_size),
    ('train.epochs', t.epochs),
    ('train.num_evals', t.num_evals),
    ('train.validation_draws', t.validation_draws),
  ):
    _require(value >= 1, field, value, 'at least 1')
  _require(m.max_tokens >= 0, 'model.max_tokens', m.max_tokens, 'at least 1, or 0 for no limit')
  _require(t.eval_batch_size >= 0, 'train.eval_batch_size', t.eval_batch_size, 'at least 1, or 0 for what suits')
  for field, value in (
    ('inject.rate', r.inject.rate),
    ('model.dropout', m.dropout),
    ('model.head_dropout', m.head_dropout),
    ('optimizer.warmup_fraction', o.warmup_fraction),
    ('optimizer.average_decay', o.average_decay),
  ):
    _require(0 <= value < 1, field, value, 'at least 0 and below 1')
  for field, value in (
    ('optimizer.learning_rate', o.learning_rate),
    ('optimizer.clip_norm', o.clip_norm),
    ('model.evidence_scale', m.evidence_scale),
    ('model.gate_temperature', m.gate_temperature),
  ):
    _require(value > 0, field, value, 'more than 0')
  for field in dataclasses.fields(r.losses):
    value = getattr(r.losses, field.name)
    _require(value >= 0, f'losses.{field.name}', value, 'at least 0')
  search = r.study.search
  _require(search.points >= 0, 'study.search.points', search.points, 'at least 0')
  _require(search.seeds >= 1, 'study.search.seeds', search.seeds, 'at least 1')
  for name, scale, low, high in search.fields:
    right = scale in ('log', 'linear') and low <= high and (scale == 'linear' or low > 0)
    expected = "'log' or 'linear', then lowest and highest, for 'log' above 0"
    _require(right, f'study.search.fields: {name}', (scale, low, high), expected)
  for field, value in (('mesh.seed', p.seed), ('mesh.data', p.data)):
    right = value >= 1 or value == -1 or (value == 0 and field == 'mesh.seed')
    _require(right, field, value, 'at least 1, or -1 for what is left')
  counts = r.plan.devices
  right = bool(counts) and all(1 <= n <= MOST_DEVICES for n in counts)
  _require(right, 'plan.devices', counts, f'numbers of devices from 1 to {MOST_DEVICES}')
  return recipe


def _require(holds: bool, field: str, value: Any, expected: str) -> None:
  if not holds:
    raise UserError(f'config.{field} is {value}; expected {expected}')
