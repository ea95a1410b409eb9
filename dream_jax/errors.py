"""The exceptions that `main` turns into one line: your input is wrong (exit code 2), or you asked it to stop (0, or 130
after Ctrl-C)."""


def one_line(message: str) -> str:
  """The message without breaks of lines; spaces inside a line stay, as names of files have them."""
  return ' '.join(line.strip() for line in message.splitlines() if line.strip())


class UserError(Exception):
  """Bad input. The message says what was found, what was expected and what to do.

  It is one line, whatever a name or a library's own message in it holds.
  """

  def __init__(self, message: str = ''):
    super().__init__(one_line(message))


class Diverged(UserError):  # noqa: N818  # As the others.
  """Numbers of a training are no longer finite: every process finds so at the same step, and stops there."""


class Preempted(Exception):  # noqa: N818  # Nothing went wrong.
  """SIGTERM was heard and everything done so far is on the disk. The message says where it stopped."""


class Interrupted(Preempted):
  """The same, asked for with Ctrl-C."""
