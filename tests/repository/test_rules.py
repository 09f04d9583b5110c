"""The rules of the house that no linter knows."""

import ast
import re
from collections import Counter

import pytest
from checkout import ROOT

from ssl_adapt.data import DATA_NAMES
from ssl_adapt.data.torchvision_sets import TORCHVISION
from ssl_adapt.data_names import WITH_COLUMNS
from ssl_adapt.recipe import available_recipes
from ssl_adapt.recipe.keys import schema_keys

SOURCES = sorted(
    path for folder in ("ssl_adapt", "reproduction", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
IMPORT_OF_TESTS = re.compile(r"^\s*(?:from|import) (?:\w+\.)*test_", re.MULTILINE)
# Not the page of error messages, which holds what does not exist.
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs/bad_input.md"}),
]


def test_sizes():
    assert len(SOURCES) > 30
    assert len(SCRIPTS) >= 3
    for path in (*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))):
        assert len(path.read_text().splitlines()) <= 300, path
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) <= 40, path


def test_no_two_modules_have_one_name():
    names = Counter(path.stem for path in SOURCES if not path.stem.startswith("__"))
    names.update(path.parent.name for path in SOURCES if path.stem == "__init__")
    names["adaptation"] -= 1  # ssl_adapt/adaptation/adaptation.py, of the class Adaptation
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []


def test_no_test_module_imports_another():
    seen = [path for path in (ROOT / "tests").rglob("*.py") if IMPORT_OF_TESTS.search(path.read_text())]
    assert seen == []
    assert IMPORT_OF_TESTS.search("if True:\n    from faults.test_search import start")


def test_few_signatures_take_the_whole_recipe():
    """Sections and plain values are handed on, so that what a value does is found near where it is read."""
    found = set()
    for path in (ROOT / "ssl_adapt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.body if isinstance(node, ast.ClassDef) else []  # the fields of a dataclass
            parts = [*ast.walk(node.args)] if isinstance(node, ast.FunctionDef) else parts
            annotations = [part.annotation for part in parts if isinstance(part, ast.arg | ast.AnnAssign)]
            if any("Recipe" in re.findall(r"\w+", ast.unparse(hint)) for hint in annotations if hint):
                found.add(f"{path.name}: {node.name}")
    assert 5 < len(found) <= 10, found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_what_exists(document):
    text = document.read_text()
    keys = set(schema_keys())
    sections = {key.partition(".")[0] for key in keys} - {"name", "seed"}
    named = set(re.findall(rf"\b((?:{'|'.join(sections)})\.[a-z_]+)=", text))
    assert named <= keys
    folders = "scripts|ssl_adapt|recipes|examples|tests|reproduction"
    for path in set(re.findall(rf"\b((?:{folders})/[\w/]+\.(?:py|yaml))", text)):
        assert (ROOT / path).exists(), path
    for recipe in re.findall(r"recipe=([a-z]\w*)\b(?!/)", text):
        assert recipe in {*available_recipes(), "runs"}


def test_data_names_of_schema_and_loader_agree():
    assert schema_keys()["data.name"].choices == DATA_NAMES
    assert ("digits", *TORCHVISION, "tiny_imagenet", "folder", *WITH_COLUMNS) == DATA_NAMES
