"""Training regimes by name: what is missing from the training data themselves, before anything is injected."""

from dream_jax.errors import UserError
from dream_jax.missingness.missing import Missing, validate
from dream_jax.missingness.protocols import uneven
from dream_jax.spec import DatasetSpec

# How a regime may be named.
FORMS = "'complete', 'modality/RATE', 'frames/RATE', 'imbalanced/AVERAGE' or 'imbalanced/AVERAGE/MODALITY'"


def regime(name: str, spec: DatasetSpec) -> Missing:
  """What a regime removes from training and validation samples; zeros stand in its place.

  Args:
    name: 'complete'; 'modality/0.5', every modality of half of the samples, at least one kept; 'frames/0.5', half of
      the frames of each; 'imbalanced/0.5', the same average with the first modality of the data set missing most, or
      the one named: 'imbalanced/0.5/audio'.
    spec: the data set.

  Raises:
    UserError: another name, a rate outside [0, 1), or an unknown modality.
  """
  kind, rate, heavy = parse_regime(name)
  if kind == 'imbalanced':
    heavy = heavy or spec.names[0]
    spec.index(heavy)
    missing = Missing('imbalanced', rates=uneven(spec, heavy, rate))
  else:
    missing = Missing(kind, rate)
  validate(missing, spec)
  return missing


def parse_regime(name: str) -> tuple[str, float, str]:
  """(kind of missingness, rate, modality that 'imbalanced' names or '') of a regime, without a data set.

  Raises:
    UserError: another name, or a rate outside [0, 1).
  """
  kind, *rest = name.split('/')
  if kind == 'complete' and not rest:
    return 'none', 0.0, ''
  if kind not in ('modality', 'frames', 'imbalanced') or not rest or len(rest) > 1 + (kind == 'imbalanced'):
    raise UserError(f'unknown training regime {name!r}; expected {FORMS}')
  try:
    rate = float(rest[0])
  except ValueError:
    raise UserError(f'training regime {name!r} has the rate {rest[0]!r}; expected a number: {FORMS}') from None
  if not 0 <= rate < 1:  # NaN fails too.
    raise UserError(f'training regime {name!r} has the rate {rate}; expected at least 0 and below 1')
  return kind, rate, rest[1] if len(rest) > 1 else ''
