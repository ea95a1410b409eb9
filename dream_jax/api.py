"""For notebooks and other programs: a trained workdir as a function, and the pure functions of an untrained model."""

import functools
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dream_jax.config.recipe import Recipe, recipe_from_config, recipe_of
from dream_jax.data.prepare import standardise
from dream_jax.errors import UserError
from dream_jax.evaluation.calibration import Calibration
from dream_jax.machine import environment, paths
from dream_jax.models.model import overlay
from dream_jax.models.outputs import Outputs
from dream_jax.models.registry import build, find_method
from dream_jax.report import answer
from dream_jax.report import results as read_results
from dream_jax.spec import DatasetSpec, ModalitySpec
from dream_jax.workdir import method_files, run_folders
from dream_jax.workdir.checkpoints import selected
from dream_jax.workdir.config_guard import read_config

Inputs = Mapping[str, Any]


@flax.struct.dataclass
class Apply:
  """The pure functions of one model.

  Attributes:
    apply: (params, inputs, *, train=False, rngs=None) -> Outputs; `inputs` are standardised, name -> [B, ...]. Jit it,
      vmap it over parameters, differentiate it.
    init: (key, features=None, zero=None) -> params. `features` are the standardised training features [n, ...] and
      lengths, `zero` says where raw zero lies after standardising (name -> [D], 0 if absent; slots that hold nothing
      else are no content): what DREAM knows of real content before training, which every training of ours starts from.
      Without them, or with fewer than 16 samples of a modality, it starts from nothing.
    spec: the modalities and the task it was made for.
  """

  apply: Callable[..., Outputs] = flax.struct.field(pytree_node=False)
  init: Callable[..., Any] = flax.struct.field(pytree_node=False)
  spec: DatasetSpec = flax.struct.field(pytree_node=False)


def make_apply(config: Any, *, spec: DatasetSpec | None = None) -> Apply:
  """The pure apply function and the initialiser of `config.model`.

  Args:
    config: a ConfigDict, as a file of `configs/` makes it.
    spec: modalities and task; by default those of `config.data`, which prepares that data set on first use.

  Raises:
    UserError: the config is wrong.
  """
  recipe = recipe_from_config(config)
  if spec is None:
    from dream_jax.data.datasets import load_dataset

    data = recipe.data
    spec = load_dataset(
      data.name, tfds_dir=data.tfds_dir, manual_dir=data.manual_dir, folder=data.dir, options=data.options
    ).spec
  method = find_method(recipe.model.name)
  model = build(method, spec, recipe_of(method, recipe).model)

  def apply(params: Any, inputs: Inputs, *, train: bool = False, rngs: Any = None) -> Outputs:
    with environment.single_precision():
      return cast(Outputs, model.apply({'params': params}, inputs, train=train, rngs=rngs))

  def init(key: jax.Array, features: Inputs | None = None, zero: Mapping[str, Any] | None = None) -> Any:
    with environment.single_precision():
      return start(key, features, zero)

  def start(key: jax.Array, features: Inputs | None, zero: Mapping[str, Any] | None) -> Any:
    params = model.init({'params': key}, empty_inputs(spec), train=False)['params']
    if features is None:
      return params
    known = {name: np.asarray(x) for name, x in features.items()}
    places = {m.name: np.asarray((zero or {}).get(m.name, 0.0)) for m in spec.modalities}
    return overlay(params, model.fitted(known, places), lambda fitted, _: jnp.asarray(fitted))

  return Apply(apply, init, spec)


def empty_inputs(spec: DatasetSpec, batch_size: int = 1) -> dict[str, jax.Array]:
  """Standardised inputs of zeros of the right shapes and types, with full lengths."""
  inputs = {}
  for m in spec.modalities:
    inputs[m.name] = jnp.zeros((batch_size, *m.shape), jnp.int32 if m.kind == 'tokens' else jnp.float32)
    if m.has_length:
      inputs[m.length_name] = jnp.full((batch_size,), m.shape[0], jnp.int32)
  return inputs


def completed(spec: DatasetSpec, inputs: Inputs) -> Inputs:
  """Inputs with zeros for what the user does not have: modalities that are absent or None, and rows that are None.

  A last axis of one is added where it is left out, as it is for training; tokens have none.

  Raises:
    UserError: there is no modality at all, and so no batch.
  """
  if not isinstance(inputs, Mapping):
    return inputs  # Refused by whoever reads it.
  made: dict[str, Any] = {name: x for name, x in inputs.items() if x is not None}
  here = [m for m in spec.modalities if m.name in made]
  if not here and not set(made) - set(spec.names):
    raise UserError(f'no modality is given; expected at least one of {", ".join(spec.names)}')
  for m in here:
    x = made[m.name]
    if isinstance(x, (list, tuple)) and any(row is None for row in x):
      made |= _with_rows(m, x, made.get(m.length_name) if m.has_length else None)
    x = made[m.name]
    if m.kind != 'tokens' and m.shape[-1] == 1 and _shape(x)[1:] == m.shape[:-1]:
      made[m.name] = np.asarray(x)[..., None]
  size = _shape(made[here[0].name])[:1] if here else ()
  for m in spec.modalities:
    if m.name not in made and size:
      made[m.name] = np.zeros((*size, *m.shape), np.int32 if m.kind == 'tokens' else np.float32)
      if m.has_length:
        made[m.length_name] = np.zeros(size, np.int32)
  return made


def _shape(x: Any) -> tuple[int, ...]:
  """The shape, () of what has none: whoever reads it says why."""
  try:
    return np.shape(x)
  except ValueError:  # Rows of different sizes.
    return ()


def _with_rows(m: ModalitySpec, rows: Any, length: Any) -> dict[str, Any]:
  """A modality of rows some of which are None: zeros, of length 0 where lengths are given."""
  held = [row for row in rows if row is not None]
  blank = np.zeros(np.shape(held[0]) if held else m.shape, np.int32 if m.kind == 'tokens' else np.float32)
  made: dict[str, Any] = {m.name: [blank if row is None else row for row in rows]}
  if length is not None and len(length) == len(rows):
    made[m.length_name] = [0 if row is None else n for row, n in zip(rows, length, strict=True)]
  return made


def load(
  workdir: str | os.PathLike[str], *, method: str | None = None, regime: str | None = None, seed: int | None = None
) -> 'Predictor':
  """A trained model as a function of raw inputs.

  Args:
    workdir: folder of a finished `--mode=train` or `--mode=study`.
    method: which of its methods; by default the best on validation, which is said on standard error where there is a
      choice. Only methods that were selected under the same missingness as the first one are compared.
    regime: which of the training regimes of a study; its first one by default.
    seed: which of its seeds; the one with the best validation score by default.

  Raises:
    UserError: the workdir holds no such model, or its files are damaged.
  """
  workdir = paths.expanded(workdir)
  environment.start_devices()
  with environment.single_precision():
    return _load(workdir, method, regime, seed)


def _load(workdir: str, method: str | None, regime: str | None, seed: int | None) -> 'Predictor':
  name = method or _best(workdir, regime) or _recipe(read_config(workdir), workdir).model.name
  folder, key = run_folders.find(workdir, name, regime)
  finished = method_files.read_method(folder, name, run=key)
  recipe = _recipe(finished.config, folder)  # A workdir may have been asked for other things since.
  chosen = find_method(name)
  if chosen.module is None or chosen.uses_oracle:
    raise UserError(
      f'{name} is no model for use: it {"ignores its inputs" if not chosen.uses_oracle else "needs the mask"}'
    )
  if seed is not None and seed not in recipe.seeds:
    raise UserError(f'{workdir} holds no seed {seed}; it has {recipe.seeds[0]} to {recipe.seeds[-1]}')
  scores = np.reshape(finished.facts['validation_score'], (len(recipe.seeds), -1)).mean(1)
  index = int(np.argmax(scores)) if seed is None else recipe.seeds.index(seed)
  params = jax.tree.map(lambda x: jnp.asarray(x[index]), selected(folder, name, key))
  parts = method_files.read_predictor_parts(folder, run=key)
  model = build(chosen, parts.spec, recipe_of(chosen, recipe).model)
  fitted = finished.rows[0].calibration
  # A method of single modalities has a row, and a calibration, for each of them and none for itself.
  calibration = fitted[index] if fitted and not chosen.separate else Calibration()
  return Predictor(model, params, parts, name, recipe.seeds[index], calibration)


def _best(workdir: str, regime: str | None) -> str | None:
  """The method that is best on validation, said aloud if there are others; None without results."""
  results = run_folders.results_of(workdir)
  if not results:
    return None
  if read_results.regimes(results):
    results = read_results.of_regime(results, regime or read_results.regimes(results)[0])
  rows = answer.ranked(results)
  if not rows:
    return results['runs'][0]['method']
  entries = [results['methods'][row] for row in rows[:2]]
  if len(rows) > 1:
    first, second = (f'{entry["method"]} ({answer.validation_score(entry):.4g})' for entry in entries)
    print(f'{workdir}: {first} is the best on validation, next {second}; method=... takes another', file=sys.stderr)
  return entries[0]['method']


def _recipe(config: Any, place: str) -> Recipe:
  try:
    return recipe_from_config(config)
  except UserError as error:  # It was right when it was written.
    hint = 'if it is of your own, import the file that registers it first'
    raise UserError(f'the config of {place} names what is not known here: {error}; {hint}') from error


class Predictor:
  """A trained model: `predictor(inputs)` gives `Outputs` for raw, unstandardised arrays.

  Inputs are a dict with one array a modality, [B, ...] as `spec` says, and `<name>_length` [B] for sequences and tokens
  (when absent, zeros at the end are padding). A last axis of one may be left out, as for training. A modality you do
  not have is absent, None, zeros, or whatever your system delivers when it fails: recognising that is the model's task.
  A row you do not have is None in a list of rows. A length of 0 means the same as zeros of the full length; a frame,
  vector or image with a NaN or infinity in it is zeros. What is no such input is refused before anything is computed,
  see `dream_jax.data.raw_inputs`. Batches are padded to a power of two, so few shapes are compiled.

  Attributes:
    spec: modalities and task.
    params: parameters of this seed.
    method: name of the method.
    seed: which seed of the workdir this is.
    statistics: what raw inputs are standardised with.
    calibration: how its confidence is put right, see `dream_jax.evaluation.calibration`.
  """

  def __init__(
    self,
    model: Any,
    params: Any,
    parts: method_files.PredictorParts,
    method: str,
    seed: int,
    calibration: Calibration = Calibration(),  # noqa: B008  # Frozen.
  ):
    self.calibration = calibration
    self.spec, self.params, self.method, self.seed = parts.spec, params, method, seed
    self.statistics, self._scale = parts.statistics, parts.scale
    self._apply = jax.jit(functools.partial(_forward, model))

  def __call__(self, inputs: Inputs) -> Outputs:
    """Outputs as NumPy arrays; predictions are calibrated probabilities, or values in the units of the labels.

    Raises:
      UserError: an input that is refused, see `standardise`, an empty batch, or values so far from those of training
        that the answer is no number.
    """
    with environment.single_precision():
      return self._predict(inputs)

  def _predict(self, inputs: Inputs) -> Outputs:
    ready = standardise(self.statistics, self.spec, completed(self.spec, inputs))
    size = len(next(iter(ready.values())))
    if size == 0:
      raise UserError('the batch is empty; expected at least one sample')
    padded = 1 << (size - 1).bit_length()
    ready = {k: np.concatenate([x, np.repeat(x[:1], padded - size, axis=0)]) for k, x in ready.items()}
    outputs = jax.tree.map(lambda x: np.asarray(x)[:size], self._apply(self.params, ready))
    prediction = self._units(outputs.prediction, self.calibration.temperature)
    self._check_finite(prediction, ready)
    return outputs.replace(
      prediction=prediction,
      unimodal_predictions=None if outputs.unimodal_predictions is None else self._units(outputs.unimodal_predictions),
    )

  def contributions(self, inputs: Inputs) -> dict[str, np.ndarray]:
    """Estimated contribution of every modality, name -> [B], see `Outputs`.

    Raises:
      UserError: the method estimates none.
    """
    return self._by_name(self(inputs), 'contributions')

  def explain(self, inputs: Inputs) -> list[dict[str, Any]]:
    """One dict a sample: the prediction and, by modality, contribution, presence, gate and weight in the fusion.

    'decision' is the class name or index, the set of classes for multilabel, or the value; 'confidence' is the
    probability of the decision, calibrated on validation (None for regression and multilabel); 'interval' is there for
    regression: (lowest, highest) value of an interval that held 90 % of the validation targets.
    """
    out = self(inputs)
    parts = {
      key: self._by_name(out, field)
      for key, field in (
        ('contributions', 'contributions'),
        ('presence', 'presence'),
        ('gates', 'gates'),
        ('weights', 'soft_mask'),
      )
      if getattr(out, field) is not None
    }
    rows = []
    for i, prediction in enumerate(out.prediction):
      decision, confidence = self._decide(prediction)
      by_modality = {key: {name: float(v[i]) for name, v in values.items()} for key, values in parts.items()}
      sure: dict[str, Any] = {'confidence': confidence}
      if self.spec.task == 'regression' and self.calibration.margin is not None:
        sure['interval'] = (decision - self.calibration.margin, decision + self.calibration.margin)
      rows.append({'decision': decision, **sure, **by_modality})
    return rows

  def _check_finite(self, prediction: np.ndarray, ready: dict[str, np.ndarray]) -> None:
    """Refuses what no arithmetic of the model survives: values astronomically far from those of training."""
    lost = ~np.isfinite(prediction).all(axis=-1)
    if lost.any():
      row = int(np.argmax(lost))
      size = {m.name: float(np.abs(ready[m.name][row]).max()) for m in self.spec.modalities if m.kind != 'tokens'}
      name = max(size, key=lambda name: size[name])
      raise UserError(
        f'row {row} has no answer: its input {name!r} lies up to {size[name]:.2g} standard deviations from the average '
        'of training; expected values like those: is it in another unit?'
      )

  def _by_name(self, outputs: Outputs, field: str) -> dict[str, np.ndarray]:
    values = getattr(outputs, field)
    if values is None:
      raise UserError(f'{self.method} estimates no {field}; load the method dream')
    return {name: values[:, m] for m, name in enumerate(self.spec.names)}

  def _units(self, prediction: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of logits over a temperature, or values on the scale of the labels."""
    if self.spec.task == 'regression':
      return self._scale.restore(prediction)
    # On the host: JAX would compile for every number of rows.
    logits = prediction / np.float32(temperature)
    return special.softmax(logits, axis=-1) if self.spec.task == 'multiclass' else special.expit(logits)

  def _decide(self, prediction: np.ndarray) -> tuple[Any, float | None]:
    def named(i):
      return self.spec.class_names[i] if self.spec.class_names else int(i)

    if self.spec.task == 'regression':
      return float(prediction[0]), None
    if self.spec.task == 'multilabel':
      return [named(i) for i in np.flatnonzero(prediction > 0.5)], None
    if self.spec.task == 'binary':
      positive = bool(prediction[0] > 0.5)
      decision = self.spec.class_names[int(positive)] if self.spec.class_names else int(positive)
      return decision, float(max(prediction[0], 1 - prediction[0]))
    return named(int(prediction.argmax())), float(prediction.max())


def _forward(model: Any, params: Any, inputs: dict[str, jax.Array]) -> Outputs:
  return model.apply({'params': params}, inputs, train=False)
