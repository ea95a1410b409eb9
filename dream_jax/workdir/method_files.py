"""Files of a workdir beside checkpoints and logs: what a finished method found, and what a predictor needs."""

import contextlib
import dataclasses
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
from dream_jax.workdir.checkpoints import check_saves_are_of
from dream_jax.workdir.metrics_log import read_metrics

SPEC_FILE, RESULTS_FILE = 'spec.json', 'results.json'
_SPEC_REMEDY = f'remove {SPEC_FILE} of that folder and run --mode=train with its config: it is written again'


@dataclasses.dataclass(frozen=True)
class Finished:
  """A finished method.

  Attributes:
    facts: parameters, seconds and selection, as in `results.json`.
    rows: what it adds to the table.
  """

  facts: dict[str, Any]
  rows: list[Row]


@dataclasses.dataclass(frozen=True)
class PredictorParts:
  """What turns raw inputs into predictions beside the parameters."""

  spec: DatasetSpec
  statistics: Statistics
  scale: LabelScale


def is_finished(workdir: str, method: str) -> bool:
  """Whether the results of a method are there; they are written last, so whatever they speak of is there too."""
  return _method_file(workdir, method).exists()


def write_method(workdir: str, method: str, facts: dict[str, Any], rows: list[Row], *, run: str | None = None) -> None:
  """Stores a finished method of a run, with the scores of samples."""
  arrays = {f'{row.name}:{protocol}': scores for row in rows for protocol, scores in row.sample_scores.items()}
  kept = ('name', 'title', 'modality', 'protocols', 'contribution', 'valuation', 'test_selected')
  entries = [
    {**{field: getattr(row, field) for field in kept}, 'calibration': [dataclasses.asdict(c) for c in row.calibration]}
    for row in rows
  ]
  sealed.write_with_arrays(_method_file(workdir, method), {'facts': facts, 'rows': entries}, arrays, run=run)


def read_method(workdir: str, method: str, *, run: str | None = None) -> Finished:
  """What `write_method` stored.

  Args:
    workdir: folder of the run.
    method: which of its methods.
    run: what it has to belong to; None takes any.

  Raises:
    UserError: the method is not finished, or its files are damaged or of another run.
  """
  path = _method_file(workdir, method)
  remedy = f'remove {path} and run the command of this workdir again: training continues from its checkpoint'
  try:
    content, arrays = sealed.read_with_arrays(path, run=run, remedy=remedy)
  except FileNotFoundError:
    raise UserError(f'{workdir} has no finished {method}; run --mode=train with this --workdir to finish it') from None
  rows = []
  for entry in content['rows']:
    scores = {p: arrays[f'{entry["name"]}:{p}'] for p in entry['protocols']}
    fitted = tuple(Calibration(**c) for c in entry.pop('calibration'))
    rows.append(Row(sample_scores=scores, calibration=fitted, **entry))
  return Finished(content['facts'], rows)


def write_predictor_parts(workdir: str, prepared: Prepared, *, run: str | None = None) -> None:
  """Stores the spec, the statistics and the scale of labels; what is there already stays.

  Raises:
    UserError: the workdir belongs to other data, or what is there is damaged or of another run.
  """
  check_data(workdir, prepared, run=run)
  path = storage.place(workdir) / SPEC_FILE
  if path.exists():
    read_predictor_parts(workdir, run=run)
    return
  statistics = prepared.statistics
  arrays = {f'mean:{name}': value for name, value in statistics.mean.items()}
  arrays |= {f'std:{name}': value for name, value in statistics.std.items()}
  scale = dataclasses.asdict(label_scale(prepared))
  content = {'spec': dataclasses.asdict(prepared.spec), 'label_scale': scale, 'data': prepared.data}
  sealed.write_with_arrays(path, content, arrays, run=run)


def check_data(workdir: str, prepared: Prepared, *, run: str | None = None) -> None:
  """Refuses data that changed since the workdir was made: results of both would stand in one table.

  Raises:
    UserError: they did, or the file that says so is damaged or of another run.
  """
  path = storage.place(workdir) / SPEC_FILE
  try:
    made_with = sealed.read(path, remedy=_SPEC_REMEDY).content['data']
  except FileNotFoundError:
    return  # Nothing to compare with.
  if made_with == prepared.data:
    sealed.read(path, run=run, remedy=_SPEC_REMEDY)
  else:
    raise UserError(
      f'{workdir} was made with other data: samples, labels, features or the order of {prepared.spec.name} have changed'
      ' since; choose another --workdir, or bring the old data back'
    )


def read_predictor_parts(workdir: str, *, run: str | None = None) -> PredictorParts:
  """What `write_predictor_parts` stored; of any run unless one is given.

  Raises:
    UserError: the files are missing, damaged or of another run.
  """
  path = storage.place(workdir) / SPEC_FILE
  try:
    content, arrays = sealed.read_with_arrays(path, run=run, remedy=_SPEC_REMEDY)
  except FileNotFoundError:
    raise UserError(
      f'{workdir} holds no trained model ({path} is missing); expected a workdir of --mode=train, which writes it'
    ) from None
  parts: dict[str, dict[str, np.ndarray]] = {'mean': {}, 'std': {}}
  for key, values in arrays.items():
    part, _, name = key.partition(':')
    parts[part][name] = values
  spec = from_config(DatasetSpec, content['spec'], 'spec')
  return PredictorParts(spec, Statistics(**parts), from_config(LabelScale, content['label_scale'], 'label_scale'))


def check_nothing_of_another(workdir: str, run: str) -> None:
  """Refuses a workdir without a config that holds files of another run: they would be taken for ours or overwritten.

  Raises:
    UserError: it does, or a file is damaged.
  """
  folder, remedy = storage.place(workdir), 'choose another --workdir'
  methods = folder / 'methods'
  files = [folder / SPEC_FILE, folder / RESULTS_FILE]
  files += [path for path in methods.iterdir() if path.suffix == '.json'] if methods.exists() else []
  for path in files:
    with contextlib.suppress(FileNotFoundError):
      sealed.read(path, run=run, remedy=remedy)
  read_metrics(workdir, run=run)
  check_saves_are_of(workdir, run, remedy=remedy)


def _method_file(workdir: str, method: str) -> epath.Path:
  return storage.place(workdir) / 'methods' / f'{storage.without_wildcards(method)}.json'
