"""What gets the command `eagle-jax` onto machines; the command itself is `eagle_jax.cli`."""
