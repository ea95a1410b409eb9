"""The methods by name: which module each one trains, what it is told, and where it comes from."""

import ast
import dataclasses
import re
from typing import Any

from dream_jax.errors import UserError, did_you_mean
from dream_jax.models.baselines.concat import Concat
from dream_jax.models.baselines.hme import Hme
from dream_jax.models.baselines.late import SeparateHeads, SingleModalities
from dream_jax.models.baselines.lmf import Lmf
from dream_jax.models.baselines.lnln import Lnln
from dream_jax.models.baselines.mmin import Mmin
from dream_jax.models.baselines.mmpareto import MmPareto
from dream_jax.models.baselines.modality_valuation import ValuationResampling
from dream_jax.models.baselines.momke import Momke
from dream_jax.models.baselines.mult import Mult
from dream_jax.models.baselines.ogm_ge import OgmGe
from dream_jax.models.baselines.p_rmf import Prmf
from dream_jax.models.baselines.tfn import Tfn
from dream_jax.models.baselines.tfr_net import TfrNet
from dream_jax.models.dream.dream import Dream, DreamSettings
from dream_jax.models.dream.losses import LossWeights
from dream_jax.models.model import Model
from dream_jax.spec import DatasetSpec


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to train a model.

  Attributes:
    name: key in configs and results.
    title: how tables call it.
    module: what it trains; None for the predictor that trains nothing.
    options: fields of the module beside those of `Model`, as pairs.
    inject: whether training drops modalities (and validation with it).
    uses_oracle: what it is told that a user would not know; marked in every table.
    source: where it was published; empty for plain controls.
    settings: fields of the config that it has a value of its own for, as pairs of dotted name and value.
  """

  name: str
  title: str
  module: type[Model] | None
  options: tuple[tuple[str, Any], ...] = ()
  inject: bool = True
  uses_oracle: tuple[str, ...] = ()
  source: str = ''
  settings: tuple[tuple[str, Any], ...] = ()

  @property
  def separate(self) -> bool:
    """Whether it is a model of each modality, side by side: a row of the table each."""
    return self.module is not None and self.module.separate


_TFN, _LMF, _MULT = 'Zadeh et al., EMNLP 2017', 'Liu et al., ACL 2018', 'Tsai et al., ACL 2019'
_OGM, _PARETO, _VALUATION = 'Peng et al., CVPR 2022', 'Wei, Hu, ICML 2024', 'Wei et al., CVPR 2024'
_MOMKE = 'Xu, Jiang, Liang, ACM MM 2024'

METHODS = {
  method.name: method
  for method in (
    Method('dream', 'DREAM', Dream, source='our design after Bi et al., Findings of EMNLP 2025 (abstract)'),
    Method('concat', 'Concat', Concat, inject=False),
    Method('concat+dropout', 'Concat + dropout', Concat),
    Method('late+dropout', 'Late averaging + dropout', SeparateHeads),
    Method('late-mlp+dropout', 'Late averaging, MLP heads + dropout', SeparateHeads, (('hidden_layer', True),)),
    Method('late', 'Late averaging', SeparateHeads, inject=False),
    Method('tfn', 'TFN', Tfn, inject=False, source=_TFN),
    Method('tfn+dropout', 'TFN + dropout', Tfn, source=_TFN),
    Method('lmf', 'LMF', Lmf, inject=False, source=_LMF),
    Method('lmf+dropout', 'LMF + dropout', Lmf, source=_LMF),
    Method('mult', 'MulT', Mult, inject=False, source=_MULT),
    Method('mult+dropout', 'MulT + dropout', Mult, source=_MULT),
    Method('mmin', 'MMIN', Mmin, source='Zhao, Li, Jin, ACL 2021'),
    Method('tfr-net', 'TFR-Net', TfrNet, source='Yuan, Li, Xu, Yu, ACM MM 2021'),
    Method('lnln', 'LNLN', Lnln, source='Zhang, Wang, Yu, NeurIPS 2024'),
    Method('p-rmf', 'P-RMF', Prmf, source='Zhu et al., ACL 2025'),
    Method('hme', 'HME-style', Hme, source='after HME, NeurIPS 2025'),
    Method('ogm-ge', 'OGM-GE', OgmGe, inject=False, source=_OGM),
    Method('ogm-ge+dropout', 'OGM-GE + dropout', OgmGe, source=_OGM),
    Method('mmpareto', 'MMPareto', MmPareto, inject=False, source=_PARETO),
    Method('mmpareto+dropout', 'MMPareto + dropout', MmPareto, source=_PARETO),
    Method('valuation', 'Valuation', ValuationResampling, inject=False, source=_VALUATION),
    Method('valuation+dropout', 'Valuation + dropout', ValuationResampling, source=_VALUATION),
    Method('momke-blind', 'MoMKE, not told the mask', Momke, (('oracle', False),), source=_MOMKE),
    Method('momke', 'MoMKE', Momke, uses_oracle=('mask',), source=_MOMKE),
    Method('unimodal', 'Single modality', SingleModalities, (('hidden_layer', True),), inject=False),
    Method('majority', 'Majority / mean', None, inject=False),
    Method('oracle+dropout', 'Concat + dropout, told the mask', Concat, (('oracle', True),), uses_oracle=('mask',)),
  )
}


_BUILT_IN = frozenset(METHODS)
_NAME = re.compile(r'[a-z][a-z0-9+_-]*')

DEFAULT_WEIGHTS = LossWeights()


# Groups of the config that a method may have values of its own for; the others belong to all.
_OWN_GROUPS = ('model', 'losses', 'inject', 'optimizer')


def register(method: Method) -> None:
  """Makes a method of yours known by its name, to configs, the command line and `dream_jax.load`.

  The file of a `--config` is a good place to call it: it is read before any name is looked up. A method that was
  registered under the same name before is replaced.

  Raises:
    UserError: the name is one of ours, or no such word as stands in a config.
  """
  if method.name in _BUILT_IN:
    raise UserError(f'method {method.name!r} is built in; choose another name')
  if not _NAME.fullmatch(method.name):
    raise UserError(f'a method is called {method.name!r}; expected small letters, digits, +, _ and -, a letter first')
  METHODS[method.name] = method


def find_method(name: str) -> Method:
  """The method of this name; 'NAME[GROUP.FIELD=VALUE, ...]' is a method with settings of its own, such as an ablation.

  Raises:
    UserError: unknown name, or brackets that cannot be read; the message lists what is known.
  """
  base, bracket, inside = name.partition('[')
  if base not in METHODS:
    raise UserError(f'unknown method {name!r}; {did_you_mean(base, tuple(METHODS))}')
  method = METHODS[base]
  if not bracket:
    return method
  if not inside.endswith(']') or method.module is None:
    raise UserError(f'method {name!r} cannot be read; expected for instance dream[model.reconstruct=never]')
  # Commas inside of parentheses belong to a tuple.
  settings = tuple(_setting(name, part.strip()) for part in re.split(r',(?![^(]*\))', inside[:-1]))
  shown = ', '.join(f'{field.partition(".")[2]} {_shown(value)}' for field, value in settings)
  return dataclasses.replace(method, name=name, title=f'{method.title}: {shown}', settings=settings)


def _setting(name: str, text: str) -> tuple[str, Any]:
  """(dotted field, value) of 'GROUP.FIELD=VALUE'."""
  field, equals, value = text.partition('=')
  if not equals or field.partition('.')[0] not in _OWN_GROUPS:
    groups = ', '.join(f'{group}.FIELD=VALUE' for group in _OWN_GROUPS)
    raise UserError(f'method {name!r}: {text!r} cannot be read; expected one of {groups}')
  try:
    return field, ast.literal_eval(value)
  except (SyntaxError, ValueError):
    return field, value  # A word.


def _shown(value: Any) -> str:
  return '+'.join(map(str, value)) if isinstance(value, tuple) else str(value)


def build(method: Method, spec: DatasetSpec, settings: DreamSettings, weights: LossWeights = DEFAULT_WEIGHTS) -> Model:
  """The Flax module of a trained method; controls share the sizes of `settings`, `weights` are of DREAM's loss."""
  if method.module is None:
    raise ValueError(f'{method.name} trains no module')
  if issubclass(method.module, Dream):
    return method.module(spec, settings, weights, **dict(method.options))
  return method.module(spec, settings.sizes(), **dict(method.options))
