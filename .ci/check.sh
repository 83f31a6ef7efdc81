#!/usr/bin/env bash
# The checks in the order in which they fail cheapest. Tests are `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  echo "== $1"
  shift
  "$@"
}

step "format" ruff format --check .
step "lint" ruff check .
step "layers" lint-imports
step "style budget" python .ci/style_budget.py
step "types" mypy
