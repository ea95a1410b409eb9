"""Files of a workdir beside checkpoints and logs: what a finished method found, and what a predictor needs."""

import dataclasses
import io
import json
from typing import Any

import numpy as np
from etils import epath

from dream_jax import storage
from dream_jax.calibration import Calibration
from dream_jax.data.prepare import Prepared, Statistics
from dream_jax.errors import UserError
from dream_jax.evaluate import Row
from dream_jax.predict import LabelScale, label_scale
from dream_jax.settings import from_config
from dream_jax.spec import DatasetSpec
from dream_jax.writers import write_json


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


def write_method(workdir: str, method: str, facts: dict[str, Any], rows: list[Row]) -> None:
  """Stores a finished method: the scores of samples first, then the file that says it is finished."""
  path = _method_file(workdir, method)
  arrays = {f'{row.name}:{protocol}': scores for row in rows for protocol, scores in row.sample_scores.items()}
  _write_arrays(path.with_suffix('.npz'), arrays)
  kept = ('name', 'title', 'modality', 'protocols', 'contribution', 'valuation', 'test_selected')
  entries = [
    {**{field: getattr(row, field) for field in kept}, 'calibration': [dataclasses.asdict(c) for c in row.calibration]}
    for row in rows
  ]
  write_json(path, {'facts': facts, 'rows': entries})


def read_method(workdir: str, method: str) -> Finished:
  """What `write_method` stored.

  Raises:
    UserError: the method is not finished, or its files are damaged.
  """
  path = _method_file(workdir, method)
  if not path.exists():
    raise UserError(f'{workdir} has no finished {method}; run --mode=train with this --workdir to finish it')
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    rows = []
    with _arrays(path.with_suffix('.npz')) as arrays:
      for entry in content['rows']:
        scores = {p: arrays[f'{entry["name"]}:{p}'] for p in entry['protocols']}
        fitted = tuple(Calibration(**c) for c in entry.pop('calibration', ()))
        rows.append(Row(sample_scores=scores, calibration=fitted, **entry))
    return Finished(content['facts'], rows)
  except Exception as error:  # Damage surfaces from JSON, zip and NumPy as many types.
    reason = (str(error).splitlines() or [''])[0][:120]
    raise UserError(
      f'{path} cannot be read ({type(error).__name__}: {reason}); remove it and run --mode=train again: training'
      ' continues from its checkpoint'
    ) from error


def write_predictor_parts(workdir: str, prepared: Prepared) -> None:
  """Stores the spec, the statistics and the scale of labels; files that are there already stay.

  Raises:
    UserError: the workdir belongs to other data.
  """
  check_data(workdir, prepared)
  folder = storage.place(workdir)
  if not (folder / 'statistics.npz').exists():
    statistics = prepared.statistics
    arrays = {f'mean:{name}': value for name, value in statistics.mean.items()}
    arrays |= {f'std:{name}': value for name, value in statistics.std.items()}
    _write_arrays(folder / 'statistics.npz', arrays)
  if not (folder / 'spec.json').exists():
    scale = dataclasses.asdict(label_scale(prepared))
    content = {'spec': dataclasses.asdict(prepared.spec), 'label_scale': scale, 'data': prepared.data}
    write_json(folder / 'spec.json', content)


def check_data(workdir: str, prepared: Prepared) -> None:
  """Refuses data that changed since the workdir was made: results of both would stand in one table.

  Raises:
    UserError: they did.
  """
  try:
    made_with = json.loads((storage.place(workdir) / 'spec.json').read_text(encoding='utf-8')).get('data')
  except (OSError, ValueError, AttributeError):
    return  # Nothing to compare with; damage is told by whoever needs the file.
  if made_with is not None and made_with != prepared.data:
    raise UserError(
      f'{workdir} was made with other data: samples, labels, features or the order of {prepared.spec.name} have changed'
      ' since; choose another --workdir, or bring the old data back'
    )


def read_predictor_parts(workdir: str) -> PredictorParts:
  """What `write_predictor_parts` stored.

  Raises:
    UserError: the files are missing or damaged.
  """
  folder = storage.place(workdir)
  try:
    content = json.loads((folder / 'spec.json').read_text(encoding='utf-8'))
    with _arrays(folder / 'statistics.npz') as arrays:
      parts: dict[str, dict[str, np.ndarray]] = {'mean': {}, 'std': {}}
      for key in arrays.files:
        part, _, name = key.partition(':')
        parts[part][name] = arrays[key]
    spec = from_config(DatasetSpec, content['spec'], 'spec')
    return PredictorParts(spec, Statistics(**parts), from_config(LabelScale, content['label_scale'], 'label_scale'))
  except FileNotFoundError as error:
    raise UserError(
      f'{workdir} holds no trained model ({error.filename} is missing); expected a workdir of --mode=train'
    ) from None
  except Exception as error:
    reason = (str(error).splitlines() or [''])[0][:120]
    raise UserError(
      f'spec.json or statistics.npz of {workdir} cannot be read ({type(error).__name__}: {reason})'
    ) from error


def _method_file(workdir: str, method: str) -> epath.Path:
  return storage.place(workdir) / 'methods' / f'{storage.without_wildcards(method)}.json'


def _write_arrays(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
  content = io.BytesIO()
  np.savez(content, **arrays)  # pyright: ignore[reportArgumentType]  # It takes any name for `allow_pickle`.
  storage.write(path, content.getvalue())


def _arrays(path: epath.Path) -> Any:
  """The `.npz` file, open."""
  return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
