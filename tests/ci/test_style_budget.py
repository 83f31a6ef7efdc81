"""The measure itself: a broken budget is seen, what is fine is not accused."""

import importlib.util
import pathlib
import sys
import types

import pytest

PATH = pathlib.Path(__file__).resolve().parents[2] / ".ci" / "style_budget.py"


@pytest.fixture(scope="module")
def budget() -> types.ModuleType:
  spec = importlib.util.spec_from_file_location("style_budget_under_test", PATH)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses look their module up
  spec.loader.exec_module(module)
  return module


@pytest.fixture
def project(budget, tmp_path, monkeypatch):
  """Writes files of a project in which every budget holds, and measures it."""
  monkeypatch.setattr(budget, "ROOT", tmp_path)
  good = {
    "README.md": "# x\n",
    "eagle_jax/config.py": '"""Fields."""\n\n\nclass A:\n  """One."""\n\n  lr: float = 1.0\n',
    "eagle_jax/nn/a.py": (
      '"""Norms."""\n\n\ndef norm(x: Float[Array, "B D"], a: A) -> Float[Array, "B D"]:\n'
      '  """Divides."""\n  return x * a.lr\n'
    ),
    "tests/nn/test_a.py": '"""Tests."""\n' + "\n".join(f"x{n} = {n}" for n in range(20)) + "\n",
  }

  def measure(**changes: str) -> list[str]:
    """Breaches after replacing files, given by name with '__' for '/'."""
    named = {name.replace("__", "/") + ".py": text for name, text in changes.items()}
    for name, text in {**good, **named}.items():
      path = tmp_path / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
    return budget.measure().breaches

  return measure


def test_a_good_project_breaks_nothing(project):
  assert project() == []


@pytest.mark.parametrize(
  ("text", "told"),
  [
    ("x = 1\n" * 401, "files over 400 lines: eagle_jax/nn/b.py has 401"),
    ("x = 1\n", "without docstring: eagle_jax/nn/b.py"),
    ('"""M."""\nclass B:\n  pass\n', "without docstring: eagle_jax/nn/b.py:2 B"),
    (
      '"""M."""\ndef f() -> None:\n  return None\n',
      "functions without docstring: eagle_jax/nn/b.py:2 f",
    ),
    (
      '"""M."""\ndef f() -> None:\n  """D."""\n' + "  x = 1\n" * 60,
      "functions too long: eagle_jax/nn/b.py:2 f has 61, limit 60",
    ),
    (
      '"""M."""\ndef _f(*, a: A, b: A, c: A, d: A, e: A, f: A, g: A, h: A) -> A:\n  return a\n',
      "too many parameters: eagle_jax/nn/b.py:2 _f has 8, limit 7",
    ),
    (
      '"""M."""\ndef _f(a: A, b: A, c: A, d: A) -> A:\n  return a\n',
      "too many positional: eagle_jax/nn/b.py:2 _f has 4, limit 3",
    ),
    ('"""M."""\ndef _f(a, b):\n  return a\n', "typed parameters and returns, %: 50"),
    ('"""M."""\ndef _f(a: A) -> A:\n  return a\n', "functions with a shape, array packages, %: 50"),
    ('"""M."""\nX = 1\n# import os\n', "commented-out code: eagle_jax/nn/b.py:3"),
    ('"""M."""\nX = 1\n# f(a, b=3)\n', "commented-out code: eagle_jax/nn/b.py:3"),
    ('"""M."""\nX = 1  # noqa: E501\n', "suppressions without a reason: eagle_jax/nn/b.py:2"),
    ('"""M."""\nX = 1  # type: ignore[misc]\n', "without a reason: eagle_jax/nn/b.py:2"),
    (
      '"""M."""\n' + "X = 1  # noqa: E501, the address is long\n" * 11,
      "suppressions: 11, the budget is ≤ 10",
    ),
  ],
)
def test_a_breach_is_named(project, text, told):
  assert any(told in breach for breach in project(eagle_jax__nn__b=text)), told


def test_copied_lines_are_seen(project):
  body = "".join(f"VALUE_{n} = {n}\n" for n in range(20))
  breaches = project(eagle_jax__nn__b='"""M."""\n' + body, eagle_jax__nn__c='"""M."""\n' + body)
  assert any("copied lines, % eagle_jax/nn/b.py ~ eagle_jax/nn/c.py" in b for b in breaches)


def test_a_test_without_a_source_is_seen(project):
  assert project(tests__nn__test_b="x = 1\n") == ["tests named for no source: tests/nn/test_b.py"]


@pytest.mark.parametrize("name", ["tests__test_architecture", "tests__parity__test_all"])
def test_suites_of_their_own_mirror_nothing(project, name):
  assert project(**{name: "x = 1\n"}) == []


def test_a_field_that_nothing_reads_is_seen(project):
  config = '"""F."""\n\n\nclass A:\n  """One."""\n\n  lr: float = 1.0\n  unused: int = 1\n'
  assert project(eagle_jax__config=config) == ["config fields that nothing reads: unused"]


def test_a_field_read_by_name_is_read(project):
  config = '"""F."""\n\n\nclass A:\n  """One."""\n\n  lr: float = 1.0\n  named: int = 1\n'
  assert project(eagle_jax__config=config, eagle_jax__b='"""M."""\nX = ("named",)\n') == []


@pytest.mark.parametrize(
  "comment",
  [
    "# x = [B, S, D] where B is the batch",
    "# The import is late: flags are read first.",
    "# f(x) is even",
    "# [B, N, C]",
  ],
)
def test_remarks_are_no_dead_code(project, comment):
  assert project(eagle_jax__nn__b=f'"""M."""\nX = 1\n{comment}\n') == []


def test_a_suppression_with_its_reason_is_counted_only(project):
  text = '"""M."""\nX = 1  # type: ignore[misc]  # the stub of optax is wrong here\n'
  assert project(eagle_jax__nn__b=text) == []


def test_figures_never_fail(budget, project, capsys):
  project(eagle_jax__nn__b="x = 1\n")
  assert budget.main(["--figures"]) == 0
  assert budget.main([]) == 1
  assert "eagle_jax/nn/b.py" in capsys.readouterr().err
