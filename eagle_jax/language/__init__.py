"""Language models: one decoder of the Llama family, its sizes, its weight table."""

from eagle_jax.language.sizes import LANGUAGE_MODELS, LlamaSize

__all__ = ["LANGUAGE_MODELS", "LlamaSize"]
