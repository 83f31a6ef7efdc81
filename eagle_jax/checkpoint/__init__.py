"""Checkpoints in Orbax's format: parameters alone, or a training run that can go on.

Both keep the parameters in a part called 'params', a nested dict with the paths of
the model, so that any of them can be the start of a stage. A training checkpoint
adds 'optimizer' and 'data'; what describes the run (config, tokenizer, template)
lies beside them as JSON.
"""

from eagle_jax.checkpoint.lazy import LazyArray, open_params
from eagle_jax.checkpoint.params import (
  is_checkpoint,
  load_params,
  read_meta,
  resolve,
  save_params,
  stored,
)
from eagle_jax.checkpoint.runs import Checkpoints, Resumable
from eagle_jax.checkpoint.stream import Writer

__all__ = [
  "Checkpoints",
  "LazyArray",
  "Resumable",
  "Writer",
  "is_checkpoint",
  "load_params",
  "open_params",
  "read_meta",
  "resolve",
  "save_params",
  "stored",
]
