"""Compiler options: by platform, as a copy for each program."""

import types

import jax
import numpy as np

from eagle_jax.sharding import compiler


def mesh_of(platform):
  return types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform=platform)]))


def test_only_tpus_have_options_and_each_caller_gets_its_own():
  found = compiler.options(mesh_of("tpu"))
  assert found == compiler.OPTIONS["tpu"]
  found.clear()
  assert compiler.options(mesh_of("tpu"))
  assert compiler.options(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])) == {}
