import pytest
import yaml

from launch import template

TEXT = """# $ in a comment stays
name: $name
items: {list: $words, count: $count}
more: $more # if more
"""


def test_any_text_stays_one_text():
  hostile = 'a: "b"\\ # {}[]*&!|>\'%@` é 日本 🦅 - yes'
  values = template.parse([f"name={hostile}", "count:=3", "words@=", "more=", "--", hostile, "-x"])
  read = yaml.safe_load(template.fill(TEXT, values))
  assert read == {"name": hostile, "items": {"list": [hostile, "-x"], "count": 3}}


def test_a_line_with_a_condition_stays_where_it_holds():
  values = {"name": "n", "words": [], "count": 0, "more": True}
  assert yaml.safe_load(template.fill(TEXT, values))["more"] is True


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["name"], "'name' is none of NAME=TEXT"),
    (["count:=1x"], "'count:=1x': Extra data"),
    (["name=n"], "the template names 'words', given are: name"),
    (["name=n", "count:=1", "words@=", "more=", "other=1"], "no line of the template names other"),
    (["name=a\nb"], "'name' holds a character that is not printable"),
    (["name=n", "count:=1", "words@=", "more=", "--", "\x1b[0m"], "'words' holds a character"),
  ],
)
def test_values_that_do_not_fit_are_told_in_one_line(tmp_path, capsys, arguments, message):
  path = tmp_path / "t.yaml"
  path.write_text(TEXT)
  assert template.main([str(path), *arguments]) == 2
  said = capsys.readouterr()
  assert said.err.startswith("template: ")
  assert message in said.err
  assert said.err.count("\n") == 1
  assert said.out == ""
