"""The command `eagle-jax`: one file per verb; nothing here is imported by the library."""
