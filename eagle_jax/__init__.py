"""EAGLE, a multimodal language model with a mixture of vision experts, in JAX and Flax.

Source: "Eagle: Exploring The Design Space for Multimodal LLMs with Mixture of
Encoders", arXiv 2408.15998.
"""

__version__ = "0.1.0"
