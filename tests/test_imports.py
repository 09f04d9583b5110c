"""What an import costs: the networks need torch and timm alone, and no order of imports hides them from timm."""

import ast
import importlib
import importlib.util
import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

import ssl_adapt
from ssl_adapt.import_hook import after_import

HEAVY = ["faiss", "kornia", "accelerate", "pydantic", "matplotlib", "scipy", "sklearn", "rich"]
ORDERS = [
    "import timm; before |= set(sys.modules); import ssl_adapt; [getattr(ssl_adapt, name) for name in LIGHT]",
    "import ssl_adapt; assert importlib.util.find_spec('timm') and 'timm' not in sys.modules; "
    "from timm import create_model",
    "import ssl_adapt.backbones.cell_network",
    "import ssl_adapt.adaptation.adaptation, ssl_adapt.export",
]
LIGHT = ["Adaptation", "Architecture", "adaptable", "apply_architecture", "export_timm", "load_export", "nt_xent"]
# timm's import takes seconds for what it imports itself, which is here done once; each order is a fork of that, where
# timm has not been imported.
IMPORTS = f"""
import importlib.util, json, os, sys
import torch, torchvision
before = set(sys.modules)
import timm
for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
    del sys.modules[name]
LIGHT = {LIGHT}
assert set(sys.modules).isdisjoint({{"timm", "ssl_adapt"}})
for order in {ORDERS}:
    if os.fork() == 0:
        exec(order)
        import timm
        imported = set({HEAVY}) & set(sys.modules) - before
        modules = {{timm.model_entrypoint(name).__module__ for name in timm.list_models()}}
        assert type(timm.create_model("resnet20", width=4)).__module__ == "ssl_adapt.backbones.cell_network"
        print(json.dumps([sorted(imported), sorted(name for name in modules if name.startswith("ssl_adapt"))]))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


def test_no_order_of_imports_hides_the_networks_and_they_need_little():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=300)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    modules = [f"ssl_adapt.backbones.{name}" for name in ("adaptable", "darts", "mobilenet", "proxyless", "resnet")]
    assert len(answers) == len(ORDERS) == 4, done.stderr
    assert [modules for _, modules in answers] == [modules] * 4
    assert answers[0][0] == [], "beside what timm itself imports"


def test_public_names_are_imported_when_they_are_asked_for():
    [block] = [node for node in ast.parse(Path(ssl_adapt.__file__).read_text()).body if isinstance(node, ast.If)]
    seen_by_mypy = {alias.name: node.module for node in block.body for alias in node.names}
    packages = {name for name, module in seen_by_mypy.items() if module == "ssl_adapt"}
    assert packages == set(ssl_adapt._PACKAGES)
    assert {name: module for name, module in seen_by_mypy.items() if name not in packages} == ssl_adapt._MODULES
    assert sorted(seen_by_mypy) == sorted(ssl_adapt.__all__) == sorted(dir(ssl_adapt))
    for name, module in seen_by_mypy.items():
        if name in packages:
            assert getattr(ssl_adapt, name) is importlib.import_module(f"ssl_adapt.{name}")
        else:
            assert getattr(ssl_adapt, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match=r"^module 'ssl_adapt' has no attribute 'Adaption'$"):
        _ = ssl_adapt.Adaption


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that says whether its import succeeds, in a folder of its own."""
    path = tmp_path / "some_module.py"
    path.write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    yield path
    sys.modules.pop("some_module", None)


def test_what_is_to_follow_an_import_follows_it_once(module):
    calls, finders = [], sys.meta_path.copy()
    after_import("some_module", lambda: calls.append(sys.modules["some_module"].value))
    assert importlib.util.find_spec("some_module").loader.get_filename() == str(module)
    assert calls == []
    imported = importlib.import_module("some_module")
    assert calls == [1]
    assert type(imported.__loader__) is type(imported.__spec__.loader) is SourceFileLoader
    assert sys.meta_path == finders
    importlib.reload(imported)
    assert calls == [1]
    after_import("some_module", lambda: calls.append("at once"))
    assert calls == [1, "at once"]
    assert sys.meta_path == finders


def test_a_failed_import_leaves_what_is_to_follow_for_the_next(module):
    calls = []
    after_import("some_module", lambda: calls.append("imported"))
    module.write_text("raise ImportError('torch is not there')\n")
    with pytest.raises(ImportError, match="torch is not there"):
        importlib.import_module("some_module")
    assert calls == []
    module.write_text("value = 'longer than before'\n")
    importlib.invalidate_caches()
    assert importlib.import_module("some_module").value == "longer than before"
    assert calls == ["imported"]
    after_import("no_such_module", lambda: calls.append("never"))
    assert importlib.util.find_spec("no_such_module") is None
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
        importlib.import_module("no_such_module")
    assert calls == ["imported"]
