"""Measures the readable shape of the project and fails where a budget is broken.

    python .ci/style_budget.py            the figures, then every breach
    python .ci/style_budget.py --figures  the figures only; never fails

Reads files and imports none of them. A figure is about the sources (`eagle_jax`,
`configs`, `launch`, `tools`, `bench`, `.ci`) unless it says that tests are meant.
"""

from __future__ import annotations

import argparse
import ast
import collections
import dataclasses
import pathlib
import re
import statistics
import sys
import tokenize
import warnings
from collections.abc import Callable, Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ("eagle_jax", "configs", "launch", "tools", "bench", ".ci")
ARRAY_PACKAGES = tuple(f"eagle_jax/{n}/" for n in ("nn", "vision", "fusion", "language", "model"))
SUITES = ("parity",)  # test folders that are suites of their own and mirror no source
WHOLE_PROJECT = ("test_architecture", "test_docs")  # test files about the project as a whole

MAX_FILE = 400  # lines, tests and weight tables included
MAX_MEDIAN_FILE = 110  # lines
MAX_FUNCTION = 60  # lines, docstring left out
MAX_PARAMETERS = 7  # self and cls left out
MAX_POSITIONAL = 3  # parameters before the keyword-only ones
MIN_TYPED = 98.0  # % of parameters and returns
MIN_SHAPED = 80.0  # % of functions of the packages that compute on arrays
MIN_SHAPED_ALL = 50.0  # % of the functions anywhere that take or give an array
MAX_COPIED = 1.0  # % of code lines inside a run that occurs elsewhere too
COPY_RUN = 8  # lines of such a run
MIN_TEST_RATIO = 0.7  # test lines per source line
MAX_README = 200  # lines
MAX_SUPPRESSIONS = 10
MAX_CONFIG_FIELDS = 80

AXIS = r"(?:[A-Za-z_]\w{0,11}|\d{1,4}|\.\.\.|·)(?:\s*[·*/+-]\s*\w+)*"
SHAPE = re.compile(rf"\[\s*{AXIS}(?:\s*,\s*{AXIS})+\s*\]|\[[BNLCDVSKGdTHW]\]|\[\]")
TYPED_SHAPE = re.compile(r"\b(?:Float|Int|UInt8?|Bool|Num|Shaped|Key|Inexact)\[[\w.| ]+,\s*f?['\"]")
ARRAY = re.compile(r"\b(?:Array|ndarray|ArrayLike|Batch|ShapeDtypeStruct)\b")
SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore|ruff:|mypy:|fmt:\s*(?:off|skip)|pragma)")
REASON = re.compile(SUPPRESSION.pattern + r"(?::?\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?(?:\[[^]]*\])?\W*")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Function:
  """What the budgets ask of one function or method."""

  place: str
  lines: int  # without the docstring
  parameters: int
  positional: int
  annotated: int
  annotatable: int
  documented: bool
  public: bool
  shaped: bool
  arrays: bool  # takes or gives an array


@dataclasses.dataclass(frozen=True)
class File:
  """One parsed file."""

  path: str  # relative to the root, with '/'
  rows: tuple[str, ...]
  tree: ast.Module
  comments: dict[int, str]  # line number → text from '#'


def read(path: pathlib.Path) -> File:
  """Parses one file and finds its comments."""
  text = path.read_text(encoding="utf-8")
  rows = iter(text.splitlines(keepends=True))
  tokens = tokenize.generate_tokens(lambda: next(rows, ""))
  comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
  name = path.relative_to(ROOT).as_posix()
  return File(name, tuple(text.splitlines()), ast.parse(text), comments)


def files(*folders: str) -> list[File]:
  """The Python files under these folders that hold anything, in a stable order."""
  paths = (p for folder in folders for p in sorted((ROOT / folder).rglob("*.py")))
  return [read(path) for path in paths if path.read_text(encoding="utf-8").strip()]


def functions(file: File) -> Iterator[Function]:
  """Describes every function of a file, nested ones too."""

  def walk(node: ast.AST, prefix: str, public: bool) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
      if isinstance(child, FunctionNode):
        name = prefix + child.name
        seen = public and not child.name.startswith("_")
        yield describe(file, child, name, public=seen)
        yield from walk(child, name + ".", False)
      elif isinstance(child, ast.ClassDef):
        yield from walk(child, f"{prefix}{child.name}.", public and not child.name.startswith("_"))
      else:
        yield from walk(child, prefix, public)

  return walk(file.tree, "", True)


def describe(file: File, node: FunctionNode, name: str, *, public: bool) -> Function:
  """Measures one function."""
  positional = [a for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls")]
  parameters = positional + node.args.kwonlyargs
  hints = [a.annotation for a in parameters] + ([node.returns] if node.name != "__init__" else [])
  last = node.end_lineno or node.lineno
  signature = "\n".join(ast.unparse(hint) for hint in hints if hint)
  doc = ast.get_docstring(node, clean=False) or ""
  remarks = "\n".join([doc, *(file.comments.get(n, "") for n in range(node.lineno, last + 1))])
  body = node.body[0]
  doc_lines = (body.end_lineno or body.lineno) - body.lineno + 1 if doc else 0
  return Function(
    place=f"{file.path}:{node.lineno} {name}",
    lines=last - node.lineno + 1 - doc_lines,
    parameters=len(parameters),
    positional=len(positional),
    annotated=sum(hint is not None for hint in hints),
    annotatable=len(hints),
    documented=bool(doc),
    public=public,
    shaped=bool(TYPED_SHAPE.search(signature) or SHAPE.search(remarks)),
    arrays=bool(ARRAY.search(signature)),
  )


def undocumented(file: File) -> Iterator[str]:
  """Names the module and the public classes that carry no docstring."""
  if not ast.get_docstring(file.tree):
    yield file.path
  for node in ast.walk(file.tree):
    if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
      continue
    if not ast.get_docstring(node):
      yield f"{file.path}:{node.lineno} {node.name}"


def dead_code(file: File) -> Iterator[str]:
  """Names the whole-line comments that are statements rather than remarks."""
  kinds = (ast.Import, ast.ImportFrom, ast.AugAssign, ast.Assert, ast.Delete, ast.Raise)
  for number, comment in file.comments.items():
    if not file.rows[number - 1].lstrip().startswith("#"):
      continue
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      try:
        body = ast.parse(comment.lstrip("#").strip()).body
      except (SyntaxError, ValueError):
        continue
    statement = body[0] if len(body) == 1 else None
    called = isinstance(statement, ast.Expr | ast.Assign) and isinstance(statement.value, ast.Call)
    if called or isinstance(statement, kinds):
      yield f"{file.path}:{number}"


def copied(sources: Sequence[File]) -> tuple[float, list[str]]:
  """The share in % of code lines inside a run found elsewhere, and the pairs of files."""
  code: dict[str, list[str]] = {}
  runs: dict[tuple[str, ...], list[tuple[str, int]]] = collections.defaultdict(list)
  for file in sources:
    rows = (" ".join(row.split("  #")[0].split()) for row in file.rows)
    kept = [r for r in rows if len(r) > 2 and not r.startswith(("#", "import ", "from ", "@"))]
    code[file.path] = kept
    for start in range(len(kept) - COPY_RUN + 1):
      runs[tuple(kept[start : start + COPY_RUN])].append((file.path, start))
  marked: set[tuple[str, int]] = set()
  pairs: collections.Counter[str] = collections.Counter()
  for places in runs.values():
    if len(places) > 1:
      marked.update((path, start + i) for path, start in places for i in range(COPY_RUN))
      pairs[" ~ ".join(sorted({path for path, _ in places}))] += 1
  share = percent(len(marked), sum(map(len, code.values())))
  return share, [pair for pair, _ in pairs.most_common(5)]


def homeless_tests(tests: Sequence[File]) -> Iterator[str]:
  """Names the test files that mirror no source module or package."""
  for file in tests:
    path = pathlib.PurePosixPath(file.path)
    name = path.stem.removeprefix("test_")
    inner = path.parent.relative_to("tests")
    if name == path.stem or path.stem in WHOLE_PROJECT or inner.as_posix() in SUITES:
      continue
    if name == inner.name:  # of the package itself
      continue
    homes = (ROOT / "eagle_jax" / inner / name, ROOT / inner / name, ROOT / f".{inner}" / name)
    suffixes = ("", ".py", ".sh")
    if not any(home.with_suffix(suffix).exists() for home in homes for suffix in suffixes):
      yield file.path


def suppressions(every: Sequence[File]) -> tuple[int, list[str]]:
  """The number of silenced checks and the places that give no reason."""
  found = [
    (f"{file.path}:{number}", comment)
    for file in every
    for number, comment in file.comments.items()
    if SUPPRESSION.search(comment)
  ]
  return len(found), [place for place, comment in found if not REASON.sub("", comment).strip()]


def config_fields(sources: Sequence[File]) -> tuple[int, list[str]]:
  """The number of config fields and those that nothing outside config.py reads."""
  config = next(file for file in sources if file.path == "eagle_jax/config.py")
  names = [
    node.target.id
    for item in config.tree.body
    if isinstance(item, ast.ClassDef)
    for node in item.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
  ]
  nodes = [
    node
    for file in sources
    if file is not config and file.path.startswith("eagle_jax/")
    for node in ast.walk(file.tree)
  ]
  read_names = {
    node.attr
    for node in nodes
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
  }
  # `getattr(sizes, axis)` reads the fields that a tuple of strings names.
  read_names |= {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
  return len(names), [name for name in names if name not in read_names]


def percent(part: float, whole: float) -> float:
  """The share in %, 100 of nothing."""
  return 100.0 * part / whole if whole else 100.0


class Report:
  """Collects figures and breaches, and prints them."""

  def __init__(self) -> None:
    self.rows: list[tuple[str, str, str]] = []
    self.breaches: list[str] = []

  def limit(self, what: str, value: float, bound: float, *, least: bool = False) -> None:
    """Notes a figure and its bound; a breach unless value ≤ bound, or ≥ where `least`."""
    holds = value >= bound if least else value <= bound
    self.rows.append((what, f"{value:.4g}", f"{'≥' if least else '≤'} {bound:g}"))
    if not holds:
      self.breaches.append(f"{what}: {value:.4g}, the budget is {self.rows[-1][2]}")

  def none(self, what: str, places: Sequence[str]) -> None:
    """Notes how many offenders there are; each is a breach."""
    self.rows.append((what, str(len(places)), "0"))
    self.breaches.extend(f"{what}: {place}" for place in places)

  def show(self) -> None:
    """Prints the figures as a table."""
    width = max(len(what) for what, _, _ in self.rows)
    for what, value, bound in self.rows:
      print(f"{what:<{width}}  {value:>7}  {bound}")


def measure_functions(report: Report, sources: Sequence[File]) -> None:
  """Holds every function to its budgets."""
  every = [(file.path, function) for file in sources for function in functions(file)]
  plain = [function for _, function in every]

  def over(bound: int, of: Callable[[Function], int]) -> list[str]:
    return [f"{f.place} has {of(f)}, limit {bound}" for f in plain if of(f) > bound]

  report.none("functions too long", over(MAX_FUNCTION, lambda f: f.lines))
  report.none("functions with too many parameters", over(MAX_PARAMETERS, lambda f: f.parameters))
  # `nn.scan` hands the arguments of a module's call over by position.
  report.none(
    "functions with too many positional",
    over(MAX_POSITIONAL, lambda f: 0 if f.place.endswith("__call__") else f.positional),
  )
  report.none(
    "public functions without docstring", [f.place for f in plain if f.public and not f.documented]
  )
  typed = percent(sum(f.annotated for f in plain), sum(f.annotatable for f in plain))
  report.limit("typed parameters and returns, %", typed, MIN_TYPED, least=True)
  inner = [f for path, f in every if path.startswith(ARRAY_PACKAGES)]
  # Functions of text, files and flags have no shapes to tell: outside the array packages the
  # share is over those whose signature has an array.
  arrays = [f for f in plain if f.arrays or f.shaped]
  shaped = percent(sum(f.shaped for f in inner), len(inner))
  report.limit("functions with a shape, array packages, %", shaped, MIN_SHAPED, least=True)
  shaped = percent(sum(f.shaped for f in arrays), len(arrays))
  report.limit("functions with a shape, all with arrays, %", shaped, MIN_SHAPED_ALL, least=True)


def measure() -> Report:
  """Takes every figure."""
  report, sources, tests = Report(), files(*SOURCES), files("tests")
  lengths = {file.path: len(file.rows) for file in sources}
  long = [f"{f.path} has {len(f.rows)}" for f in sources + tests if len(f.rows) > MAX_FILE]
  report.none(f"files over {MAX_FILE} lines", long)
  report.limit("median file, lines", statistics.median(lengths.values()), MAX_MEDIAN_FILE)
  measure_functions(report, sources)
  bare = [place for file in sources for place in undocumented(file)]
  report.none("modules and public classes without docstring", bare)
  report.none("commented-out code", [p for file in sources + tests for p in dead_code(file)])
  share, pairs = copied(sources)
  report.limit(f"copied lines, % {'; '.join(pairs)}".strip(), share, MAX_COPIED)
  report.none("tests named for no source", list(homeless_tests(tests)))
  ratio = sum(len(file.rows) for file in tests) / sum(lengths.values())
  report.limit("test lines per source line", ratio, MIN_TEST_RATIO, least=True)
  count, unreasoned = suppressions(sources + tests)
  report.limit("suppressions", count, MAX_SUPPRESSIONS)
  report.none("suppressions without a reason", unreasoned)
  count, unread = config_fields(sources)
  report.limit("config fields", count, MAX_CONFIG_FIELDS)
  report.none("config fields that nothing reads", unread)
  readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
  report.limit("README lines", len(readme), MAX_README)
  return report


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints the figures; returns 1 where a budget is broken."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--figures", action="store_true", help="print the figures, never fail")
  options = parser.parse_args(arguments)
  report = measure()
  report.show()
  if options.figures or not report.breaches:
    return 0
  print("\n" + "\n".join(report.breaches), file=sys.stderr)
  return 1


if __name__ == "__main__":
  sys.exit(main())
