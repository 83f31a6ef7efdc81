"""The one exception a user is meant to see: a sentence, never a traceback."""


class EagleError(Exception):
  """Something the user can put right.

  The message states the rule, the two values that break it and the place, in
  one or a few lines. `eagle_jax.cli` prints it alone and exits with `exit_code`.
  """

  exit_code = 2
