"""What every method is: one Flax module that predicts, says what its training minimises, and how gradients are made.

Dimension letters: B batch, M modalities, C outputs.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import numpy as np

from dream_jax.models.encoders import Inputs
from dream_jax.models.objective import task_loss
from dream_jax.models.outputs import Outputs
from dream_jax.models.sizes import Sizes
from dream_jax.parallel import rows
from dream_jax.spec import DatasetSpec

Batch = dict[str, Any]

# The input that tells a method with an oracle what is missing: float [B, M], the share of each slot that is real.
ORACLE_MASK = 'oracle_mask'


class Model(nn.Module):
  """A method: `apply({'params': p}, inputs, train=False) -> Outputs`.

  A subclass writes `__call__`, and `objective` if its training minimises more than the task loss; a method that is
  defined on gradients overrides `gradient`. Encoders are a submodule called `encoders` with one child per modality, so
  that gradients of modalities can be told apart.

  Attributes:
    spec: modalities and task.
    sizes: widths and dropout rates; rates may be traced values.
  """

  spec: DatasetSpec
  sizes: Sizes = Sizes()

  # Whether `objective` reads batch['clean'], the inputs before the injection.
  reads_clean = False
  # Top-level modules whose labels do not come from the data: they see new ones in every epoch and cannot learn them by
  # heart, so weight decay leaves them alone.
  undecayed: ClassVar[tuple[str, ...]] = ()
  # Whether this is M models of one modality each, side by side, that share no parameter and are selected separately.
  separate = False

  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch; inputs are standardised features, each with batch axis B, and lengths of sequences."""
    raise NotImplementedError(f'{type(self).__name__} predicts nothing')

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """Terms of the training loss, weighted: their sum is minimised.

    Args:
      batch: 'inputs' after injection, 'clean' before it (only `reads_clean`), 'label', and 'kept' float32 [B, M], the
        share of each slot that the injection kept. Where it removes parts of sequences also 'kept_frames', name ->
        bool [B, T], the frames that it kept. What was missing before the injection is nowhere in it.
    """
    prediction = self(batch['inputs'], train=True).prediction
    return {'task': task_loss(self.spec, prediction, batch['label'])}

  @nn.nowrap
  def owners(self, params: Any) -> Any:
    """For `separate` models, which of them each parameter belongs to, a tree like `params`; see `step.select_best`."""
    raise NotImplementedError(f'{type(self).__name__} is one model, {len(params)} groups of parameters')

  @nn.nowrap
  def fitted(self, features: Mapping[str, np.ndarray], zero: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters that have a closed form on the training data: a part of the tree, the same for every seed.

    Args:
      features: standardised training features [n, ...] and lengths.
      zero: name -> where raw zero lies.
    """
    del features, zero
    return {}

  @nn.nowrap
  def loss(self, params: Any, batch: Batch, rng: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(total, terms) of one batch; `rng` feeds dropout and whatever else training draws ('dropout' and 'draw')."""
    dropout, draw = jax.random.split(rng)
    terms = self.apply({'params': params}, batch, method='objective', rngs={'dropout': dropout, 'draw': draw})
    return sum(terms.values()), terms  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]

  @nn.nowrap
  def gradient(self, params: Any, batch: Batch, rng: jax.Array) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Any]:
    """((total, terms), gradients like `params`) of one batch, as `jax.value_and_grad` gives them.

    In a program that is mapped over devices the batch is this device's rows and what comes back is the mean over all
    of them, see `parallel.rows`.
    """
    return rows.mean(jax.value_and_grad(self.loss, has_aux=True)(params, batch, rng))


def overlay(params: Any, fitted: Any, put: Callable[[Any, Any], Any]) -> Any:
  """`params` with `put(leaf of fitted, its own leaf)` in the places that `fitted` names, see `Model.fitted`."""
  if not isinstance(fitted, Mapping):
    return put(fitted, params)
  return {**params, **{name: overlay(params[name], part, put) for name, part in fitted.items()}}
