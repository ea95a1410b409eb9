"""The methods by name: which module each one trains, what it is told, and which rows of a table it fills."""

import dataclasses
from typing import Literal

import flax.linen as nn

from dream_jax.errors import UserError
from dream_jax.models.baselines.concat import Concat
from dream_jax.models.baselines.late import SeparateHeads
from dream_jax.models.dream import Dream, DreamSettings
from dream_jax.spec import DatasetSpec
from dream_jax.suggest import did_you_mean


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to train a model.

  Attributes:
    name: key in configs and results.
    title: how tables call it.
    model: which module; 'majority' trains nothing.
    inject: whether training drops modalities (and validation with it).
    hidden_layer: whether separate heads have a hidden layer.
    uses_oracle: what it is told that a user would not know; marked in every table.
  """

  name: str
  title: str
  model: Literal['dream', 'concat', 'late', 'unimodal', 'oracle', 'majority']
  inject: bool = True
  hidden_layer: bool = False
  uses_oracle: tuple[str, ...] = ()


METHODS = {
  method.name: method
  for method in (
    Method('dream', 'DREAM', 'dream'),
    Method('concat', 'Concat', 'concat', inject=False),
    Method('concat+dropout', 'Concat + dropout', 'concat'),
    Method('late+dropout', 'Late averaging + dropout', 'late'),
    Method('late-mlp+dropout', 'Late averaging, MLP heads + dropout', 'late', hidden_layer=True),
    Method('unimodal', 'Single modality', 'unimodal', inject=False, hidden_layer=True),
    Method('majority', 'Majority / mean', 'majority', inject=False),
    Method('oracle+dropout', 'Concat + dropout, told the mask', 'oracle', uses_oracle=('mask',)),
  )
}


def find_method(name: str) -> Method:
  """The method of this name.

  Raises:
    UserError: unknown name; the message lists the known ones.
  """
  if name not in METHODS:
    raise UserError(f'unknown method {name!r}; {did_you_mean(name, tuple(METHODS))}')
  return METHODS[name]


def build(method: Method, spec: DatasetSpec, settings: DreamSettings) -> nn.Module:
  """The Flax module of a trained method; controls share the sizes of `settings`."""
  if method.model == 'dream':
    return Dream(spec, settings)
  if method.model in ('concat', 'oracle'):
    return Concat(spec, settings.sizes(), oracle=method.model == 'oracle')
  if method.model in ('late', 'unimodal'):
    return SeparateHeads(spec, settings.sizes(), method.hidden_layer)
  raise ValueError(f'{method.name} trains no module')
