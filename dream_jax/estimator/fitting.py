"""Training through the engine: the arrays of a table, a recipe, and what a predictor needs in the end."""

import contextlib
import dataclasses
import io
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from dream_jax.config.default import get_default
from dream_jax.config.recipe import Recipe, recipe_from_config, recipe_of
from dream_jax.data.datasets import Dataset, Split, sample_keys
from dream_jax.data.prepare import Prepared, prepare
from dream_jax.errors import InputError, UserError
from dream_jax.evaluation import calibration
from dream_jax.evaluation.predict import label_scale
from dream_jax.experiments.units import Unit, run_key, train_plan
from dream_jax.experiments.workbench import Workbench
from dream_jax.machine import environment, paths
from dream_jax.missingness.missing import Missing
from dream_jax.models.registry import Method, find_method
from dream_jax.spec import DatasetSpec, ModalitySpec
from dream_jax.training.programs import Programs
from dream_jax.training.runs import Runs
from dream_jax.training.train import Trainer
from dream_jax.workdir import run_folders
from dream_jax.workdir.config_guard import alone
from dream_jax.workdir.method_files import PredictorParts
from dream_jax.workdir.sealed import plain

# What stands in for a method where there is one modality.
ALONE_METHOD = 'concat'
_STEPS, _BATCH = 1500, 64
_EPOCHS = (10, 200)
_MOST_COMPILED = 4
_COMPILED: dict[Any, dict[Any, Programs]] = {}
_OWN = ('seed', 'num_seeds', 'model.name', 'train.epochs')


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained method, all seeds.

  Attributes:
    method: its name.
    config: what it was trained with.
    parts: spec, statistics and the scale of labels.
    params: leading axis S.
    temperatures: of each seed's logits.
    margin: half width of the 90 % interval of a regression; None elsewhere.
    validation: predictions for the validation rows, means of the seeds: probabilities [n, C] or values [n, 1].
  """

  method: str
  config: dict[str, Any]
  parts: PredictorParts
  params: Any
  temperatures: list[float]
  margin: float | None
  validation: np.ndarray


def usable(name: str, num_modalities: int) -> Method:
  """The method of this name, or what stands in for it where there is nothing to fuse.

  Raises:
    InputError: it cannot be used: it needs the mask, ignores its inputs, or is a model of each modality.
  """
  try:
    method = find_method(name)
  except UserError as error:
    raise InputError(str(error)) from error
  if method.module is None or method.uses_oracle or method.separate:
    why = 'ignores its inputs' if method.module is None else 'needs the mask' if method.uses_oracle else 'fuses nothing'
    raise InputError(f"method {name!r} is no model for use: it {why}; expected for instance 'dream'")
  return find_method(ALONE_METHOD) if num_modalities == 1 and method.inject else method


def epochs_for(size: int) -> int:
  """Passes over so many training rows, where nobody says how many."""
  return min(max(math.ceil(_STEPS * _BATCH / size), _EPOCHS[0]), _EPOCHS[1])


def recipe_for(
  method: str, size: int, *, n_seeds: int, epochs: int | None, seed: int, config: Mapping[str, Any] | None
) -> tuple[Any, Recipe]:
  """(config, recipe) of a training on `size` rows.

  Args:
    method: its name.
    size: training rows.
    n_seeds: how many seeds train side by side.
    epochs: passes; None to choose.
    seed: the first seed.
    config: dotted fields of a config and their values, beside those above.

  Raises:
    InputError: a field or a value that there is not.
  """
  made = get_default()
  made.name, made.data.name, made.controls = 'table', 'table', ()
  made.seed, made.num_seeds, made.model.name = seed, n_seeds, method
  made.train.epochs = epochs_for(size) if epochs is None else epochs
  made.train.batch_size = _batch_size(size, n_seeds)
  for field, value in (config or {}).items():
    if field in _OWN:
      raise InputError(f'config holds {field!r}; expected it as an argument: n_seeds, epochs, method or random_state')
    try:
      made.update_from_flattened_dict({field: value})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
      raise InputError(
        f'config[{field!r}] = {value!r} cannot be set ({" ".join(str(error).split())[:120]}); python -m dream_jax.main'
        ' --mode=fields shows all fields'
      ) from error
  try:
    return made, recipe_from_config(made)
  except UserError as error:
    raise InputError(str(error)) from error


def train(
  config: Any,
  recipe: Recipe,
  method: Method,
  modalities: tuple[ModalitySpec, ...],
  features: Mapping[str, np.ndarray],
  label: np.ndarray,
  validation: np.ndarray,
  *,
  num_classes: int,
  workdir: str | None,
  verbose: bool,
) -> Model:
  """Trains all seeds of a method and chooses by validation.

  Args:
    config: as `recipe_for` made it.
    recipe: likewise.
    method: what to train.
    modalities: of the inputs.
    features: raw inputs of all rows.
    label: index of the class, or values, of all rows.
    validation: which rows choose.
    num_classes: 0 for a regression.
    workdir: where the run is kept; None for a folder that is removed afterwards.
    verbose: whether to show the progress.

  Raises:
    UserError: training diverged, there is too little memory, or the workdir holds something damaged.
  """
  task = 'regression' if not num_classes else 'binary' if num_classes == 2 else 'multiclass'
  # There is no test split: nobody reports a figure.
  spec = DatasetSpec('table', modalities, task, num_classes if num_classes > 2 else 1, 'real')
  ids = np.array([f'{i:09}' for i in range(len(label))])
  label = label.astype(np.int32 if num_classes else np.float32)
  splits = {
    name: Split(ids[rows], sample_keys(ids[rows]), {n: x[rows] for n, x in features.items()}, label[rows], {})
    for name, rows in (('train', ~validation), ('validation', validation))
  }
  dataset = Dataset(spec, splits, {})
  with environment.single_precision(), _silent(not verbose), _folder(workdir) as folder:
    prepared = prepare(dataset, train_missing=Missing(), seed=recipe.seed)
    plan = train_plan(recipe, spec)
    unit = Unit(method.name, next(iter(plan.regimes)))
    key = run_key(unit, plan, recipe, dataset.fingerprint, {})
    print(f'{method.name}: compiling', flush=True)
    bench = Workbench(recipe, prepared, _compiled_before(recipe, prepared))
    trainer = bench.trainer(method, Runs(recipe.seeds))
    trained = trainer.run(run_folders.run_folder(folder, method.name, unit.regime, key), run=key)
    params = jax.tree.map(np.asarray, trained.best.params)
    temperatures, margin, predicted = _calibrated(bench, trainer, trained.best.params)
  parts = PredictorParts(spec, prepared.statistics, label_scale(prepared))
  return Model(method.name, plain(config), parts, params, temperatures, margin, predicted)


def _calibrated(bench: Workbench, trainer: Trainer, params: Any) -> tuple[list[float], float | None, np.ndarray]:
  """(temperature of every seed, margin of their mean, mean predictions for complete validation rows)."""
  spec, split = bench.prepared.spec, bench.prepared.splits['validation']
  draws = recipe_of(trainer.method, bench.recipe).train.validation_draws if trainer.method.inject else 1

  def predicted(missing: Missing, draw: int) -> np.ndarray:
    found = trainer.programs.predictor.split(
      params, bench.feed.inputs, 'validation', missing=missing, seed=bench.recipe.seed + draw, only=('prediction',)
    )
    return found['prediction']

  # As confidence is fitted for results: under the missingness of training.
  made = np.concatenate([predicted(trainer.inject, draw) for draw in range(draws)], axis=1)
  truth = np.concatenate([split.label] * draws)
  whole = predicted(Missing(), 0)
  if spec.task == 'regression':
    return [1.0] * len(whole), calibration.fit(spec, made.mean(0), truth).margin, whole.mean(0)
  temperatures = [calibration.fit(spec, each, truth).temperature for each in made]
  logits = whole / np.array(temperatures)[:, None, None]
  act = jax.nn.softmax if spec.task == 'multiclass' else jax.nn.sigmoid
  return temperatures, None, np.asarray(act(logits.astype(np.float32))).mean(0)


def _compiled_before(recipe: Recipe, prepared: Prepared) -> dict[Any, Programs]:
  """What an earlier fit of this process compiled for the same recipe and data of the same sizes; the last few stay."""
  sizes = tuple((name, len(split)) for name, split in prepared.splits.items())
  key = (json.dumps(plain(dataclasses.asdict(dataclasses.replace(recipe, seed=0)))), prepared.spec, sizes)
  found = _COMPILED.pop(key, {})
  _COMPILED[key] = found
  while len(_COMPILED) > _MOST_COMPILED:
    del _COMPILED[next(iter(_COMPILED))]
  return found


def _batch_size(size: int, n_seeds: int) -> int:
  """Rows of a batch: fewer for few rows, and what the devices can share."""
  wanted = _BATCH
  while wanted > 8 and wanted * 4 > size:
    wanted //= 2
  count = len(jax.devices())
  ways = count // math.gcd(count, n_seeds)
  return -(-wanted // ways) * ways


@contextlib.contextmanager
def _folder(workdir: str | None) -> Iterator[str]:
  if workdir is None:
    with tempfile.TemporaryDirectory(prefix='dream_jax_') as folder:
      yield folder
    return
  folder = paths.expanded(workdir)
  with alone(folder):
    yield folder


@contextlib.contextmanager
def _silent(wanted: bool) -> Iterator[None]:
  with contextlib.redirect_stdout(io.StringIO()) if wanted else contextlib.nullcontext():
    yield
