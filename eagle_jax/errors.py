"""The one exception a user is meant to see: a sentence, never a traceback."""

FATAL = 43
"""Exit code of a training whose EagleError a restart would only repeat."""


class EagleError(Exception):
  """Something the user can put right.

  The message states the rule, the two values that break it and the place, in
  one or a few lines. `eagle_jax.cli` prints it alone and exits with `exit_code`.
  """

  exit_code = 2


class PassingError(EagleError):
  """Something that may be gone at the next try, such as a full disk; launchers count tries."""

  exit_code = 1


class PreemptedError(EagleError):
  """A run that was asked to stop and lost nothing: the same command goes on."""

  exit_code = 42
