"""Files of a run beside checkpoints and logs: what its finished method found, and what a predictor needs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from dream_jax.data.prepare import Prepared, Statistics
from dream_jax.errors import UserError
from dream_jax.evaluation.calibration import Calibration
from dream_jax.evaluation.evaluate import Row
from dream_jax.evaluation.predict import LabelScale, label_scale
from dream_jax.settings import from_config
from dream_jax.spec import DatasetSpec
from dream_jax.workdir import sealed, storage

SPEC_FILE, RESULTS_FILE = 'spec.json', 'results.json'
_SPEC_REMEDY = 'remove the folder that it lies in and run the command of the workdir again: that run is made again'


@dataclasses.dataclass(frozen=True)
class Finished:
  """A finished method.

  Attributes:
    facts: parameters, seconds and selection, as in `results.json`.
    rows: what it adds to the table.
    method: its name.
    regime: name of the training regime.
    search: whether it is a search of settings, which leaves no parameters.
    config: what it was made with, as nested dicts.
    key: of its run, see `units.run_key`; None where it was written for none.
  """

  facts: dict[str, Any]
  rows: list[Row]
  method: str = ''
  regime: str = ''
  search: bool = False
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  key: str | None = None


@dataclasses.dataclass(frozen=True)
class PredictorParts:
  """What turns raw inputs into predictions beside the parameters."""

  spec: DatasetSpec
  statistics: Statistics
  scale: LabelScale


def is_finished(folder: str, method: str) -> bool:
  """Whether the results of a method are there; they are written last, so whatever they speak of is there too."""
  return _method_file(folder, method).exists()


def write_method(
  folder: str,
  method: str,
  facts: Mapping[str, Any],
  rows: list[Row],
  *,
  regime: str = '',
  search: bool = False,
  config: Any = None,
  run: str | None = None,
) -> None:
  """Stores a finished method of a run, with the scores of samples; for the arguments see `Finished`."""
  arrays = {f'{row.name}:{protocol}': scores for row in rows for protocol, scores in row.sample_scores.items()}
  kept = ('name', 'title', 'modality', 'protocols', 'contribution', 'native', 'valuation', 'test_selected')
  entries = [
    {**{field: getattr(row, field) for field in kept}, 'calibration': [dataclasses.asdict(c) for c in row.calibration]}
    for row in rows
  ]
  made = {'method': method, 'regime': regime, 'search': search, 'config': {} if config is None else config}
  sealed.write_with_arrays(_method_file(folder, method), {'facts': facts, 'rows': entries, **made}, arrays, run=run)


def read_method(folder: str, method: str, *, run: str | None = None) -> Finished:
  """What `write_method` stored.

  Args:
    folder: that of the run.
    method: what was trained there.
    run: key of the run; None takes any.

  Raises:
    UserError: the method is not finished, or its files are damaged or of another run.
  """
  path = _method_file(folder, method)
  remedy = f'remove {folder} and run the command of its workdir again: that run is made again'
  try:
    content, arrays, key = sealed.read_with_arrays(path, run=run, remedy=remedy)
  except FileNotFoundError:
    raise UserError(f'{folder} has no finished {method}; run the command of its workdir again to finish it') from None
  rows = []
  for entry in content['rows']:
    scores = {p: arrays[f'{entry["name"]}:{p}'] for p in entry['protocols']}
    fitted = tuple(Calibration(**c) for c in entry.pop('calibration'))
    rows.append(Row(sample_scores=scores, calibration=fitted, **entry))
  made = {field: content[field] for field in ('method', 'regime', 'search', 'config')}
  return Finished(content['facts'], rows, key=key, **made)


def write_predictor_parts(folder: str, prepared: Prepared, *, run: str | None = None) -> None:
  """Stores the spec, the statistics and the scale of labels; what is there already stays.

  Raises:
    UserError: what is there is damaged or of another run.
  """
  path = storage.place(folder) / SPEC_FILE
  if path.exists():
    read_predictor_parts(folder, run=run)
    return
  statistics = prepared.statistics
  arrays = {f'mean:{name}': value for name, value in statistics.mean.items()}
  arrays |= {f'std:{name}': value for name, value in statistics.std.items()}
  scale = dataclasses.asdict(label_scale(prepared))
  content = {'spec': dataclasses.asdict(prepared.spec), 'label_scale': scale}
  sealed.write_with_arrays(path, content, arrays, run=run)


def read_predictor_parts(folder: str, *, run: str | None = None) -> PredictorParts:
  """What `write_predictor_parts` stored; of any run unless one is given.

  Raises:
    UserError: the files are missing, damaged or of another run.
  """
  path = storage.place(folder) / SPEC_FILE
  try:
    content, arrays, _ = sealed.read_with_arrays(path, run=run, remedy=_SPEC_REMEDY)
  except FileNotFoundError:
    raise UserError(f'{folder} holds no trained model: {path} is missing; {_SPEC_REMEDY}') from None
  parts: dict[str, dict[str, np.ndarray]] = {'mean': {}, 'std': {}}
  for key, values in arrays.items():
    part, _, name = key.partition(':')
    parts[part][name] = values
  spec = from_config(DatasetSpec, content['spec'], 'spec')
  return PredictorParts(spec, Statistics(**parts), from_config(LabelScale, content['label_scale'], 'label_scale'))


def _method_file(folder: str, method: str) -> epath.Path:
  return storage.place(folder) / 'methods' / f'{storage.without_wildcards(method)}.json'
