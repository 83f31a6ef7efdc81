import pytest

from eagle_jax.demo import extras
from eagle_jax.errors import EagleError


def test_a_missing_package_says_how_to_install_it():
  with pytest.raises(EagleError, match=r"pip install 'eagle-jax\[demo\]'"):
    extras.require("no_such_package_of_the_demo")


def test_a_shipped_file_is_found_and_a_missing_one_named():
  assert extras.shipped("numpy", "__init__.py").is_file()
  with pytest.raises(EagleError, match=r"no/such\.png"):
    extras.shipped("numpy", "no", "such.png")
