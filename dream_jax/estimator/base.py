"""scikit-learn's base class where it is installed; elsewhere a few lines that give its parameters."""

# pyright: reportAssignmentType=false
# Two classes of one name: whoever imports this module sees one.

import inspect
from typing import Any

try:
  from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
  from sklearn.exceptions import NotFittedError
except ImportError:

  class NotFittedError(ValueError, AttributeError):
    """`predict` before `fit`."""

  class BaseEstimator:
    """What scikit-learn's would give: parameters by name, those of `__init__`."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
      """Name -> value of every argument of `__init__`."""
      del deep
      return {name: getattr(self, name) for name in _names(type(self))}

    def set_params(self, **params: Any) -> 'BaseEstimator':
      """Sets some of them."""
      known = _names(type(self))
      for name, value in params.items():
        if name not in known:
          raise ValueError(f'Invalid parameter {name!r} for estimator {type(self).__name__}. Valid: {known}')
        setattr(self, name, value)
      return self

    def __getstate__(self) -> dict[str, Any]:
      return self.__dict__.copy()

    def __repr__(self) -> str:
      defaults = inspect.signature(type(self).__init__).parameters
      changed = {n: v for n, v in self.get_params().items() if v != defaults[n].default}
      return f'{type(self).__name__}({", ".join(f"{n}={v!r}" for n, v in changed.items())})'

  class ClassifierMixin:
    _estimator_type = 'classifier'

  class RegressorMixin:
    _estimator_type = 'regressor'


def _names(cls: type) -> list[str]:
  return [name for name in inspect.signature(cls.__init__).parameters if name != 'self']


Base: Any = BaseEstimator
Classifier: Any = ClassifierMixin
Regressor: Any = RegressorMixin
NotFitted: Any = NotFittedError
