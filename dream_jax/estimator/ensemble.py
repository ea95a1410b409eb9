"""The mean of all seeds as one predictor.

Dimension letters: S seeds, B batch, M modalities, C outputs.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.api import Predictor
from dream_jax.data.prepare import standardise
from dream_jax.errors import InputError
from dream_jax.evaluation.calibration import Calibration
from dream_jax.models.outputs import Outputs
from dream_jax.workdir.method_files import PredictorParts

# Rows of one call; more are cut, fewer filled up.
_PADDED = (1, 8, 64, 512)
_ROWS = _PADDED[-1]


class Ensemble(Predictor):
  """As `Predictor`, of several seeds: probabilities, values and everything by modality are the means of theirs."""

  def __init__(
    self,
    model: Any,
    params: Any,
    parts: PredictorParts,
    method: str,
    temperatures: Sequence[float],
    margin: float | None,
  ):
    """`params` have a leading axis S; `temperatures` are one a seed; `margin` is of the mean."""
    super().__init__(model, jax.tree.map(jnp.asarray, params), parts, method, 0, Calibration(margin=margin))
    self._values = {
      'temperature': jnp.asarray(temperatures, jnp.float32)[:, None, None],
      'std': jnp.float32(parts.scale.std),
      'mean': jnp.float32(parts.scale.mean),
    }
    self._forward = _compiled(model)

  def _predict(self, inputs: Mapping[str, Any]) -> Outputs:
    ready = standardise(self.statistics, self.spec, inputs)
    size = len(ready[self.spec.names[0]])
    if size == 0:
      raise InputError('Found array with 0 sample(s) (X has no rows) while a minimum of 1 is required.')
    parts = [self._part({name: x[i : i + _ROWS] for name, x in ready.items()}) for i in range(0, size, _ROWS)]
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: np.concatenate(x), *parts)

  def _part(self, ready: dict[str, np.ndarray]) -> Outputs:
    size = len(ready[self.spec.names[0]])
    padded = next(rows for rows in _PADDED if rows >= size)  # Few sizes: each is compiled.
    if padded > size:
      ready = {name: np.concatenate([x, np.repeat(x[:1], padded - size, axis=0)]) for name, x in ready.items()}
    outputs = jax.tree.map(lambda x: np.asarray(x)[:size], self._forward(self.params, ready, self._values))
    self._check_finite(outputs.prediction, ready)
    return outputs


@functools.lru_cache(maxsize=8)
def _compiled(model: Any) -> Any:
  """The forward pass of all seeds; models of equal shapes share it, so that another fit compiles nothing."""
  task = model.spec.task

  def units(x, values):
    if task == 'regression':
      return x * values['std'] + values['mean']
    return jax.nn.softmax(x) if task == 'multiclass' else jax.nn.sigmoid(x)

  def mean(x):
    return None if x is None else x.mean(0)

  def forward(params, inputs, values):
    each = jax.vmap(lambda p: model.apply({'params': p}, inputs, train=False))(params)
    single = each.unimodal_predictions
    return Outputs(
      prediction=units(each.prediction / values['temperature'], values).mean(0),
      contributions=mean(each.contributions),
      presence=mean(each.presence),
      gates=mean(each.gates),
      soft_mask=mean(each.soft_mask),
      unimodal_predictions=None if single is None else units(single, values).mean(0),
    )

  return jax.jit(forward)
