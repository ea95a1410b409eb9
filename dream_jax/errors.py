"""The exceptions that `main` turns into one line: your input is wrong (exit code 2), or you asked it to stop (0, or 130
after Ctrl-C)."""


class UserError(Exception):
  """Bad input. The message says what was found, what was expected and what to do, on one line."""


class Diverged(UserError):  # noqa: N818  # As the others.
  """Numbers of a training are no longer finite: every process finds so at the same step, and stops there."""


class Preempted(Exception):  # noqa: N818  # Nothing went wrong.
  """SIGTERM was heard and everything done so far is on the disk. The message says where it stopped."""


class Interrupted(Preempted):
  """The same, asked for with Ctrl-C."""
