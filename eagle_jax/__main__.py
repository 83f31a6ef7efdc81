"""`python -m eagle_jax` is the command `eagle-jax`."""

import sys

from eagle_jax.cli.main import main

if __name__ == "__main__":
  sys.exit(main())
