"""The one exception that means "your input is wrong": `main` prints it as one line and exits with code 2."""


class UserError(Exception):
  """Bad input. The message says what was found, what was expected and what to do, on one line."""
