"""What holds of the project as a whole."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from eagle_jax.vision import EXPERTS

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = sorted(
  path.relative_to(ROOT / "eagle_jax")
  for path in (ROOT / "eagle_jax").rglob("*.py")
  if path.name not in ("__init__.py", "__main__.py")
)


def test_the_style_budgets_hold(capsys):
  spec = importlib.util.spec_from_file_location("style_budget", ROOT / ".ci" / "style_budget.py")
  assert spec is not None
  assert spec.loader is not None
  budget = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = budget  # dataclasses look their module up
  spec.loader.exec_module(budget)
  code = budget.main([])
  assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", EXPERTS)
def test_every_expert_has_its_module_table_sizes_and_test(name):
  expert = EXPERTS[name]
  for path in (
    f"eagle_jax/vision/{expert.file}.py",
    f"eagle_jax/vision/weights/{expert.file}.py",
    f"tests/vision/test_{expert.file}.py",
  ):
    assert (ROOT / path).is_file(), path
  assert {"released", "demo"} <= set(expert.sizes)
  for size in expert.sizes.values():
    assert expert.table(size).rules


def test_every_module_of_vision_is_an_expert_of_the_table():
  modules = {path.stem for path in (ROOT / "eagle_jax" / "vision").glob("*.py")} - {"__init__"}
  assert modules == {expert.file for expert in EXPERTS.values()}


@pytest.mark.parametrize("source", [str(s) for s in SOURCES if "weights" not in s.parts[:-1]])
def test_every_source_has_its_test(source):
  path = pathlib.Path(source)
  assert (ROOT / "tests" / path.parent / f"test_{path.name}").is_file()


@pytest.mark.parametrize(
  "module",
  [
    "eagle_jax",
    "eagle_jax.nn",
    "eagle_jax.vision",
    "eagle_jax.config",
    "eagle_jax.registry",
    "eagle_jax.convert.engine",
    *(f"eagle_jax.vision.weights.{expert.file}" for expert in EXPERTS.values()),
  ],
)
def test_light_modules_stay_free_of_jax(module):
  code = f"import sys, {module}; assert 'jax' not in sys.modules"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
