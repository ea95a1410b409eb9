"""The exceptions that `main` turns into one line: your input is wrong (exit code 2), or you asked it to stop (0, or 130
after Ctrl-C); and what a user probably meant."""

import difflib
from collections.abc import Iterable


def one_line(message: str) -> str:
  """The message without breaks of lines; spaces inside a line stay, as names of files have them."""
  return ' '.join(line.strip() for line in message.splitlines() if line.strip())


class UserError(Exception):
  """Bad input. The message says what was found, what was expected and what to do.

  It is one line, whatever a name or a library's own message in it holds.
  """

  def __init__(self, message: str = ''):
    super().__init__(one_line(message))


class InputError(UserError, ValueError):
  """Bad input of a function that follows scikit-learn, whose callers expect a ValueError."""


class Diverged(UserError):  # noqa: N818  # As the others.
  """Numbers of a training are no longer finite: every process finds so at the same step, and stops there."""


class Preempted(Exception):  # noqa: N818  # Nothing went wrong.
  """SIGTERM was heard and everything done so far is on the disk. The message says where it stopped."""


class Interrupted(Preempted):
  """The same, asked for with Ctrl-C."""


def near(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
  """Up to `limit` of `known` that look like `name`, the nearest first; its initials count ('lr' is learning_rate)."""
  known = list(dict.fromkeys(known))
  same = [k for k in known if name.lower() in (k.lower(), ''.join(word[:1] for word in k.lower().split('_')))]
  close = difflib.get_close_matches(name, known, n=limit, cutoff=0.6)
  return list(dict.fromkeys(same + close))[:limit]


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = '', limit: int = 20) -> str:
  """'did you mean a or b?' when something is near, else 'known: a, b, c' (at most `limit` names).

  `prefix` is put before each name that is shown; names are compared without it.
  """
  known = list(dict.fromkeys(known))
  shown = [f'{prefix}{k}' for k in near(name, known)]
  if shown:
    return f'did you mean {" or ".join(shown)}?'
  more = f', ... ({len(known)} in all)' if len(known) > limit else ''
  return f'known: {", ".join(f"{prefix}{k}" for k in known[:limit])}{more}' if known else 'nothing is known here'
