"""Weight tables of the language models, as data; neither jax nor flax is imported here."""
