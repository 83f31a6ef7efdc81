"""An experiment of one small expert that takes seconds, for tests that train."""

import dataclasses

from eagle_jax import config

MODEL = config.Model(
  experts=("clip@demo",),
  language="demo",
  image_size=64,
  grid_side=2,
  dtype="float32",
  frozen_dtype="float32",
  remat="none",
)


def experiment(data, **changes):
  values = {
    "name": "small",
    "stage": "finetune",
    "init_missing": True,
    "batch_size": 4,
    "steps": 4,
    "log_every": 1,
    "model": MODEL,
    "data": dataclasses.replace(data, max_length=48),
    "mesh": config.Mesh(data=1, fsdp=4, tensor=2),
    "checkpoints": config.Checkpoints(every=2, keep=2),
  }
  return config.Experiment(**{**values, **changes})
