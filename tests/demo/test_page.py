from html.parser import HTMLParser

from eagle_jax.demo import page


class Reader(HTMLParser):
  """Collects tags that open and checks that each is closed in order."""

  def __init__(self):
    super().__init__()
    self.open, self.seen = [], []

  def handle_starttag(self, tag, attrs):
    self.seen.append((tag, dict(attrs)))
    if tag not in ("meta", "img", "br"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def _read(text):
  reader = Reader()
  reader.feed(text)
  assert reader.open == []
  return reader.seen


def test_a_page_is_closed_and_escapes_its_texts():
  text = page.page(
    "a & b",
    [page.section("<h>", "l < r", page.facts([("n", "<v>")])), page.bars([("x", 0.25, 1)])],
  )
  seen = _read(text)
  assert ("i", {"class": "c1", "style": "width:25.0%"}) in seen
  assert "&lt;h&gt;" in text
  assert "&lt;v&gt;" in text
  assert "a &amp; b" in text


def test_a_lone_cell_spans_its_row():
  seen = _read(page.table(("a", "b"), [("whole",), ("1", "2")]))
  assert ("th", {"class": "text", "colspan": "2"}) in seen
  assert sum(tag == "td" for tag, _ in seen) == 2


def test_the_page_adapts_to_dark_and_to_phones():
  text = page.page("t", [])
  assert "prefers-color-scheme:dark" in text
  assert 'name="viewport"' in text
