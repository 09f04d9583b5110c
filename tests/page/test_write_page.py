"""The page as a file: text from the data is text, and nothing is asked for."""

import json
import re
from pathlib import Path

from ssl_adapt.page.write_page import write_report
from ssl_adapt.recipe import load_recipe, save_recipe

BAD = '<script>alert("1")</script>'


def test_what_comes_from_the_data_is_shown_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "a <b> & 'c'"
    folder.mkdir()
    save_recipe(load_recipe(["recipe=debug", "data.name=folder", f"data.root='{BAD}'"]), folder / "recipe.yaml")
    (folder / "bad_images.json").write_text(json.dumps({BAD: BAD}))
    (folder / "status.json").write_text(json.dumps({"state": "failed", "reason": BAD}))
    write_report(str(folder))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert BAD not in page
    assert page.count("&lt;script&gt;alert(") >= 3, "recipe, bad images and reason"
    assert "<h1>a &lt;b&gt; &amp; &#39;c&#39;</h1>" in page


def test_it_names_no_file_or_address_to_load(tmp_path: Path) -> None:
    save_recipe(load_recipe("debug"), tmp_path / "recipe.yaml")
    [line] = write_report(str(tmp_path), page=str(tmp_path / "page.html"))
    assert line.startswith(f"{tmp_path / 'page.html'}: ")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # Vega's text has addresses, which it cites
    assert re.findall(r'(?:src|href)="(?!#|data:)', markup) == []
    assert "default-src 'none'" in markup
    assert not (tmp_path / "report.html").exists()
