"""`DreamClassifier`, `DreamRegressor` and `fit`: tables in, predictions out."""

import math
import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from dream_jax.errors import InputError, UserError, did_you_mean
from dream_jax.estimator import fitting, store, targets
from dream_jax.estimator.base import Base, Classifier, NotFitted, Regressor
from dream_jax.estimator.ensemble import Ensemble
from dream_jax.estimator.notes import warn
from dream_jax.estimator.reader import fit_reader, restore_reader
from dream_jax.estimator.table import Table, as_table
from dream_jax.machine import environment
from dream_jax.models.outputs import Outputs


class DreamEstimator(Base):
  """What `DreamClassifier` and `DreamRegressor` share.

  Args:
    modalities: name -> columns, such as {'labs': ['lab_*', 'age'], 'note': 'text_column'}: a column, a list of columns
      and wildcards, or `dream_jax.vector`, `text`, `sequence` or `image` of them where the kind has to be said. None
      makes one vector of all columns, and then there is nothing to fuse.
    method: a name of the registry; `python -m dream_jax.main --mode=list` shows them.
    n_seeds: how many models train side by side; the mean of their predictions is the answer.
    epochs: passes over the training rows; None chooses by their number.
    validation_fraction: share of the rows that choose the best moment of training and fit the confidence.
    indicators: whether a number that was missing in training has a second column that says where.
    config: further fields of a config by dotted name, such as {'model.width': 32}; `--mode=fields` shows them.
    workdir: folder where the run is kept and a killed one goes on; None for a temporary one.
    verbose: whether progress is printed.
    random_state: the first seed; the same seed gives the same answer.
  """

  def __init__(
    self,
    modalities: Mapping[str, Any] | None = None,
    *,
    method: str = 'dream',
    n_seeds: int = 4,
    epochs: int | None = None,
    validation_fraction: float = 0.15,
    indicators: bool = True,
    config: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    verbose: bool = True,
    random_state: int = 0,
  ):
    self.modalities = modalities
    self.method = method
    self.n_seeds = n_seeds
    self.epochs = epochs
    self.validation_fraction = validation_fraction
    self.indicators = indicators
    self.config = config
    self.workdir = workdir
    self.verbose = verbose
    self.random_state = random_state

  def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
    """Trains on a table.

    Args:
      X: a frame of pandas or Polars, a dict of columns, a list of dicts, or a 2-D array of numbers.
      y: a label for each row.
      groups: what must not be in training and validation both, such as the patient of each row.

    Raises:
      InputError: something in it cannot be used; the message names it.
    """
    self._check_arguments()
    table = self._table(X, reset=True)
    size = table.size
    label, classes = self._label(y, size)
    codes = None if classes is None else label
    members = targets.groups_of(groups, size)
    validation = targets.validation_rows(
      codes, members, size=size, fraction=self.validation_fraction, seed=self.random_state
    )
    reader, unused = fit_reader(self.modalities, table, np.flatnonzero(~validation), indicators=self.indicators)
    method = fitting.usable(self.method, len(reader.parts))
    if method.name != self.method:
      warn(
        f'there is one modality and nothing to fuse: {method.name} is trained in place of {self.method}; with several'
        " groups of columns say modalities={'NAME': [...], ...}"
      )
    if self.verbose:
      print(f'{reader.describe()}; {size - validation.sum()} rows train, {validation.sum()} validate', flush=True)
      if unused:
        print(f'columns that no modality uses: {", ".join(unused)}', flush=True)
    environment.start_devices()
    config, recipe = fitting.recipe_for(
      method.name,
      int(size - validation.sum()),
      n_seeds=self.n_seeds,
      epochs=self.epochs,
      seed=self.random_state,
      config=self.config,
    )
    try:
      model = fitting.train(
        config,
        recipe,
        method,
        reader.modalities,
        reader.inputs(table),
        label,
        validation,
        num_classes=0 if classes is None else len(classes),
        workdir=None if self.workdir is None else os.fspath(self.workdir),
        verbose=self.verbose,
      )
    except InputError:
      raise
    except UserError as error:
      raise InputError(str(error)) from error
    self._reader, self._model, self._rows = reader, model, size
    self._ensemble = store.predictor(model)
    if classes is not None:
      self.classes_ = classes
    self._set_facts()
    self.validation_score_ = self._score(model.validation, label[validation])
    return self

  def predict(self, X: Any) -> np.ndarray:
    """The answer for each row; what a row lacks, and a modality or column that X lacks, is missing.

    Raises:
      NotFittedError: before `fit`.
      InputError: X cannot be used; the message says why.
    """
    return self._answer(np.asarray(self.outputs(X).prediction))

  def outputs(self, X: Any) -> Outputs:
    """Everything that the model says, as arrays [B, ...]; see `Outputs`. Latents are left out."""
    self._check_fitted()
    inputs = self._reader.inputs(self._table(X, reset=False))
    return self._predictor(inputs)

  def contributions(self, X: Any) -> dict[str, np.ndarray]:
    """What each modality contributed to each answer, name -> [B]; see `Outputs`.

    Raises:
      InputError: the method estimates none.
    """
    values = self.outputs(X).contributions
    if values is None:
      raise InputError(f"{self.method_} estimates no contributions; expected method='dream' and two modalities or more")
    return {name: np.asarray(values[:, m]) for m, name in enumerate(self._reader.parts)}

  def explain(self, X: Any) -> list[dict[str, Any]]:
    """A dict for each row: 'decision', 'confidence' or 'interval', and by modality what DREAM says of it.

    See `dream_jax.api.Predictor.explain`.
    """
    self._check_fitted()
    rows = self._predictor.explain(self._reader.inputs(self._table(X, reset=False)))
    names = set(self._reader.parts)
    return [
      {
        key: {n: v for n, v in value.items() if n in names} if isinstance(value, dict) else self._named(key, value)
        for key, value in row.items()
      }
      for row in rows
    ]

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the fitted model into a folder; `load` of another process gives the same predictions, bit for bit."""
    self._check_fitted()
    params = {**self.get_params(deep=False), 'modalities': store.modalities_as_json(self.modalities)}
    more = {
      'class': type(self).__name__,
      'params': params,
      'reader': self._reader.state(),
      'rows': self._rows,
      'validation_score': self.validation_score_,
    }
    store.write(path, self._model, more, getattr(self, 'classes_', None))

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> Self:
    """The fitted model of a folder.

    Raises:
      InputError: `save` of this class did not write it, or it is damaged.
    """
    model, more, classes = store.read(path)
    if more['class'] != cls.__name__:
      raise InputError(f'{path} holds a {more["class"]}; expected {cls.__name__}: dream_jax.{more["class"]}.load')
    made = cls(**more['params'])
    made._reader, made._model, made._rows = restore_reader(more['reader']), model, more['rows']
    made._ensemble = store.predictor(model)
    if classes is not None:
      made.classes_ = classes
    made.validation_score_ = more['validation_score']
    made._set_facts()
    return made

  def __sklearn_tags__(self) -> Any:
    tags = super().__sklearn_tags__()
    tags.input_tags.allow_nan = True
    tags.target_tags.required = True
    return tags

  def __sklearn_is_fitted__(self) -> bool:
    return hasattr(self, '_model')

  def __getstate__(self) -> Any:
    state = super().__getstate__()
    if '_ensemble' in state:  # Compiled; it is made again.
      state = {**state, '_ensemble': None}
    return state

  def __repr__(self, **options: Any) -> str:
    text = super().__repr__(**options)
    if not hasattr(self, '_model'):
      return text
    kind = f'{len(self.classes_)} classes' if hasattr(self, 'classes_') else 'regression'
    score = f'validation {self._score_name} {self.validation_score_:.3f}'
    seeds = f'{len(self._model.temperatures)} seeds of {self.method_}'
    return f'{type(self).__name__}, fitted on {self._rows} rows, {kind}: {self._reader.describe()}; {seeds}, {score}'

  # What the two differ in.
  _score_name = ''

  def _label(self, y: Any, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(what the engine learns, the classes or None)."""
    raise NotImplementedError

  def _answer(self, prediction: np.ndarray) -> np.ndarray:
    raise NotImplementedError

  def _score(self, prediction: np.ndarray, label: np.ndarray) -> float:
    raise NotImplementedError

  def _named(self, key: str, value: Any) -> Any:
    return value

  @property
  def _predictor(self) -> Ensemble:
    if self._ensemble is None:
      self._ensemble = store.predictor(self._model)
    return self._ensemble

  def _set_facts(self) -> None:
    self.n_features_in_, self.method_ = len(self._reader.columns), self._model.method
    self.__dict__.pop('feature_names_in_', None)
    if not self._reader.plain:
      self.feature_names_in_ = np.array(self._reader.columns, object)

  def _table(self, X: Any, *, reset: bool) -> Table:
    table = as_table(X)
    if not reset and table.plain and len(table.names) != self.n_features_in_:
      raise InputError(
        f'X has {len(table.names)} features, but {type(self).__name__} is expecting {self.n_features_in_} features as'
        ' input'
      )
    if not table.size:
      raise InputError(
        f'Found array with 0 sample(s) (shape=(0, {len(table.names)})) while a minimum of 1 is required: X has no rows'
      )
    if not table.names:
      raise InputError(
        f'Found array with 0 feature(s) (shape=({table.size}, 0)) while a minimum of 1 is required: X has no columns'
      )
    return table

  def _check_fitted(self) -> None:
    if not hasattr(self, '_model'):
      raise NotFitted(f'This {type(self).__name__} instance is not fitted yet. Call fit first, or load a saved one.')

  def _check_arguments(self) -> None:
    f = self.validation_fraction
    if isinstance(f, bool) or not isinstance(f, (int, float)) or not 0 < f < 1:
      raise InputError(f'validation_fraction is {f!r}; expected a number between 0 and 1')
    for name, least in (('n_seeds', 1), ('epochs', 1), ('random_state', 0)):
      value = getattr(self, name)
      if name == 'epochs' and value is None:
        continue
      if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise InputError(f'{name} is {value!r}; expected a whole number from {least} on')


class DreamClassifier(Classifier, DreamEstimator):
  """A classifier of several modalities, any of which may be missing, with scikit-learn's `fit` and `predict`.

  See `DreamEstimator` for the arguments.

  Attributes:
    classes_: the classes, sorted.
    method_: what was trained.
    validation_score_: accuracy on the complete validation rows. They chose the model: on new rows it will be lower.
  """

  _score_name = 'accuracy'

  def predict_proba(self, X: Any) -> np.ndarray:
    """Calibrated probabilities of `classes_`, [B, C]: means of all seeds."""
    return self._probabilities(np.asarray(self.outputs(X).prediction))

  def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
    """The share of rows that are answered correctly."""
    predicted = self.predict(X)
    right = predicted == np.asarray(y, predicted.dtype if predicted.dtype.kind == 'O' else None)
    return float(np.average(right, weights=sample_weight))

  def _label(self, y: Any, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    classes, codes = targets.classes_of(y, size)
    return codes, classes

  def _probabilities(self, prediction: np.ndarray) -> np.ndarray:
    return np.concatenate([1 - prediction, prediction], axis=1) if len(self.classes_) == 2 else prediction

  def _answer(self, prediction: np.ndarray) -> np.ndarray:
    return self.classes_[self._probabilities(prediction).argmax(1)]

  def _score(self, prediction: np.ndarray, label: np.ndarray) -> float:
    return float((self._probabilities(prediction).argmax(1) == label).mean())

  def _named(self, key: str, value: Any) -> Any:
    if key != 'decision':
      return value
    found = self.classes_[value]
    return found.item() if isinstance(found, np.generic) else found


class DreamRegressor(Regressor, DreamEstimator):
  """A regression from several modalities, any of which may be missing, with scikit-learn's `fit` and `predict`.

  See `DreamEstimator` for the arguments.

  Attributes:
    method_: what was trained.
    validation_score_: R2 on the complete validation rows. They chose the model: on new rows it will be lower.
  """

  _score_name = 'R2'

  def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
    """R2, the share of the variance that is explained: 1 is perfect, 0 the mean of y."""
    predicted = self.predict(X)
    return _r2(predicted, targets.amounts_of(y, len(predicted)), sample_weight)

  def _label(self, y: Any, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    return targets.amounts_of(y, size), None

  def _answer(self, prediction: np.ndarray) -> np.ndarray:
    return prediction[:, 0].astype(np.float64)

  def _score(self, prediction: np.ndarray, label: np.ndarray) -> float:
    return _r2(self._model.parts.scale.restore(prediction)[:, 0], label, None)


def fit(
  frame: Any,
  *,
  target: str,
  modalities: Mapping[str, Any] | None = None,
  groups: str | None = None,
  task: str | None = None,
  **options: Any,
) -> DreamClassifier | DreamRegressor:
  """A model of a column of a frame: the short way to `DreamClassifier` and `DreamRegressor`.

  Args:
    frame: as for `DreamEstimator.fit`, with the target among its columns.
    target: name of its column. Text, booleans and few different whole numbers are classes, other numbers amounts.
    modalities: as for `DreamEstimator`.
    groups: name of a column whose values must not be in training and validation both.
    task: 'classification' or 'regression', where the target may be either.
    **options: further arguments of `DreamEstimator`.

  Raises:
    InputError: something in it cannot be used; the message names it.
  """
  table = as_table(frame)
  for name in (target, groups):
    if name is not None and str(name) not in table:
      raise InputError(f'the frame has no column {name!r}; {did_you_mean(str(name), table.names)}')
  if task not in (None, 'classification', 'regression'):
    raise InputError(f"task is {task!r}; expected 'classification' or 'regression'")
  own = [str(name) for name in (target, groups) if name is not None]
  y, members = (table.raw(name) for name in (str(target), str(groups if groups is not None else target)))
  classes = targets.is_classes(y, table.size, str(target)) if task is None else task == 'classification'
  made = (DreamClassifier if classes else DreamRegressor)(modalities, **options)
  return made.fit(table.without(*own), y, groups=members if groups is not None else None)


def _r2(predicted: np.ndarray, label: np.ndarray, weight: Any) -> float:
  label = np.asarray(label, np.float64)
  spread = np.average((label - np.average(label, weights=weight)) ** 2, weights=weight)
  error = np.average((label - predicted) ** 2, weights=weight)
  return float(1 - error / spread) if spread > 0 else (1.0 if error == 0 else -math.inf)
