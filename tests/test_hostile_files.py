"""Untrusted files: what is no export, architecture or recipe is refused in one sentence; nothing in it runs."""

import ast
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from checkout import ROOT
from safetensors.torch import load_file, save_file
from script_calls import run_script

from ssl_adapt import Architecture, export_timm, load_export, load_recipe
from ssl_adapt.adaptation.architecture import MAX_EDGES
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.frozen_network import find_network
from ssl_adapt.export.check import build_on_meta, check_export
from ssl_adapt.json_text import MAX_DEPTH, read_json, read_text

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = timm.create_model("resnet20", width=2, layers=(1,), num_classes=0)
    return export_timm(model, tmp_path_factory.mktemp("good") / "net")


@pytest.fixture
def folder(export: Path, tmp_path: Path) -> Path:
    """A copy of the export, to be spoiled."""
    return Path(shutil.copytree(export, tmp_path / "net"))


def refusal_of(call: Callable[[], object]) -> str:
    """The sentence with which it is refused, after checking that it is one."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the callers look at the message)
        call()
    assert type(caught.value) is UserError
    sentence = str(caught.value)
    assert sentence.isprintable(), sentence
    assert 20 < len(sentence) < 500
    return sentence


def refusal(folder: Path) -> str:
    sentence = refusal_of(lambda: load_export(folder))
    assert sentence.startswith(f"{folder} cannot be loaded: ")
    return sentence.partition(" cannot be loaded: ")[2]


def refusal_of_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))
    return refusal(folder)


UNKNOWN = "there is no network {} in timm or here: give a plain name of timm.list_models()"
OF_FILES = "model_args has {!r}, which makes timm read other files or take memory: take it out"
CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"architecture": "hf-hub:someone/net"}, UNKNOWN.format("'hf-hub:someone/net'")),
    ({"architecture": "local-dir:../net"}, UNKNOWN.format("'local-dir:../net'")),
    ({"architecture": "no\nnet"}, UNKNOWN.format("'no\\nnet'")),
    ({"architecture": 3}, "config.json has architecture: 3, expected text"),
    ({"architecture": None}, "config.json has no architecture: write the folder with export_timm"),
    ({"auto_map": {"a": "b.py"}}, "config.json has the unknown key 'auto_map': take it out"),
    ({"num_classes": -1}, "config.json has num_classes: -1, expected an integer from 0 to 2**31"),
    ({"model_args": []}, "config.json has model_args: [], expected a mapping"),
    ({"model_args": None}, "config.json's model_args is null, expected a mapping"),
    ({"pretrained_cfg": {"custom_load": True}}, "config.json's pretrained_cfg has custom_load: True, expected false"),
    ({"pretrained_cfg": {"file": "/etc/x"}}, "config.json's pretrained_cfg has the unknown key 'file': take it out"),
    ({"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}}, "config.json's pretrained_cfg has input_size: [3, 1000"),
    ({"pretrained_cfg": {"std": [0, 1, 1]}}, "config.json's pretrained_cfg has std: [0, 1, 1], expected a list of num"),
    *(({"model_args": {key: "x"}}, OF_FILES.format(key)) for key in ("checkpoint_path", "pretrained_cfg", "device")),
    ({"architecture": "darts", "model_args": {"genotype": "/etc/passwd"}}, "model_args has the genotype '/etc/passwd'"),
    ({"architecture": "adaptable_timm", "model_args": {"base": "hf-hub:a/b", "base_args": {}, "edges": []}},
     UNKNOWN.format("'hf-hub:a/b'")),
    ({"architecture": "adaptable_timm", "model_args": {"base": "resnet18", "base_args": {"pretrained": True}}},
     OF_FILES.format("pretrained")),
    ({"architecture": "adaptable_timm", "model_args": {"base": "adaptable_timm"}}, "adaptable_timm needs the name 'ba"),
    ({"model_args": {"width": 10**9}}, "the integers in model_args add up to 1000000000, more than the 1000000 that"),
    ({"model_args": {"layers": [1] * 1001}}, "model_args has a list of 1,001 entries, and at most 1,000 are taken"),
    ({"model_args": {"layers": [1] * 900}}, "this network can't be built: "),
    ({"model_args": {"width": 500_000, "layers": [1]}}, "this network has 4,500,016,500,000 parameters, and at most"),
    ({"model_args": {"block": "x"}}, "this network can't be built: block='x' is not one of basic, bottleneck"),
    ({"model_args": {"eval": "1"}}, "this network can't be built: "),
    ({"model_args": {"width": 4, "layers": [1]}}, "model.safetensors does not fit config.json: 'stem.conv.weight' is"),
    ({"model_args": {"width": 2}}, "model.safetensors does not fit config.json: 'layer1.1.conv1.conv.weight' is"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CONFIGS, ids=lambda value: str(value)[:50])
def test_a_config_that_is_none_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    assert refusal_of_config(folder, lambda config: config.update(change)).startswith(message)


TEXTS = [
    (pickle.dumps({"version": 1}), "is not text in UTF-8"),
    (pickle.dumps({"version": 1}, protocol=0), "is not JSON: Expecting value: line 1 column 1 (char 0)"),
    (b"[" * 2**20, "is nested more than 32 deep"),
    (b"[" * 33 + b"]" * 33, "is nested more than 32 deep"),
    (b" " * 2**23, "is larger than 4 MiB"),
    (b'{"a": 1, "b": {"c": 1, "c": 2}}', "has the key 'c' twice: keep one of them"),
    (b'{"a": NaN}', "holds NaN: write a finite number"),
    (b'{"a": -Infinity}', "holds -Infinity: write a finite number"),
    (b'{"a": 1e999}', "holds inf: write a finite number"),
    (b'{"a": ' + b"9" * 5000 + b"}", "holds an integer of more than 300 digits"),
    (b'{"a": "\\ud800"}', "holds '\\ud800', which has half of a surrogate pair"),
    (b'{"\\udfff": 1}', "holds '\\udfff', which has half of a surrogate pair"),
]


@pytest.mark.parametrize(("data", "message"), TEXTS, ids=lambda value: str(value)[:30])
def test_a_text_that_is_no_json_is_refused_everywhere(folder: Path, data: bytes, message: str) -> None:
    (folder / CONFIG).write_bytes(data)
    assert refusal(folder).startswith(f"config.json {message}")
    (folder / "architecture.json").write_bytes(data)
    output = run_script(f"model={folder / 'architecture.json'}", script="inspect_network.py")
    assert output.code == 2
    assert output.err.count("\n") == 1
    assert message in output.err


def test_what_is_just_allowed_is_read() -> None:
    assert read_json("[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH, "it") != []
    assert read_json(f'{{"a": {"9" * 300}, "😀": 1e300}}', "it")["a"] == 10**300 - 1


class _Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "a.pt", "b.PKL", "c.ckpt", "d.pth.tar"])
def test_pickles_are_not_opened(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    assert refusal(folder) == f"its weights are in {name!r}, which can run code when it is read: ask for {WEIGHTS}"
    (folder / name).unlink()
    assert refusal(folder) == f"it has no {WEIGHTS}: write the folder with export_timm"
    (folder / WEIGHTS).write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    assert refusal(folder).startswith(f"{WEIGHTS} is damaged")
    assert not (tmp_path / "sprung").exists()
    pickle.loads((folder / WEIGHTS).read_bytes())
    assert (tmp_path / "sprung").exists(), "the trap was real"


def test_the_package_reads_no_pickles() -> None:
    loads = 0
    for path in sorted((ROOT / "ssl_adapt").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {module.partition(".")[0] for module in modules} & {"pickle", "joblib", "dill", "shelve"}, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                loads += 1
                assert "weights_only=True" in ast.unparse(node), path
    assert loads >= 1


WEIGHT_CHANGES: list[tuple[Callable[[dict[str, torch.Tensor]], object], str]] = [
    (lambda w: w.pop("layer1.0.conv1.bn.bias"),
     "'layer1.0.conv1.bn.bias' is missing (1 missing, 0 too many, 0 of another shape or type)"),
    (lambda w: w.update({"evil\n": torch.ones(1)}), "'evil\\n' is none of the network's (0 missing, 1 too many, 0 of"),
    (lambda w: w.update({"stem.conv.weight": torch.ones(4, 3, 3, 3)}),
     "'stem.conv.weight' is F32 of (4, 3, 3, 3) there, and torch.float32 of (2, 3, 3, 3) in the network (0 missing, 0"),
    (lambda w: w.update({"stem.conv.weight": torch.ones(2, 3, 3, 3, dtype=torch.int64)}),
     "'stem.conv.weight' is I64 of (2, 3, 3, 3) there, and torch.float32 of"),
    (lambda w: w.update({"stem.bn.num_batches_tracked": torch.tensor(1.0)}),
     "'stem.bn.num_batches_tracked' is F32 of () there, and torch.int64 of () in the network"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WEIGHT_CHANGES)
def test_weights_of_another_network_are_refused(folder: Path, change: Any, message: str) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)
    assert refusal(folder).startswith(f"{WEIGHTS} does not fit {CONFIG}: {message}")


@pytest.mark.parametrize(("value", "ok"), [("nan", False), ("inf", False), ("3", True)])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: str, ok: bool) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["stem.bn.running_var"][1] = float(value)
    save_file({name: w.half() if w.is_floating_point() else w for name, w in weights.items()}, folder / WEIGHTS)
    if ok:  # half precision is as good
        assert load_export(folder).stem.bn.running_var[1] == 3
    else:
        assert refusal(folder).startswith("the weight 'stem.bn.running_var' is not finite (1 in all)")


def test_headers_that_lie_are_refused(folder: Path) -> None:
    for data in (b"", (2**62).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{", b"\0" * 99):
        (folder / WEIGHTS).write_bytes(data)
        assert refusal(folder).startswith(f"{WEIGHTS} is damaged")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_links_and_pipes_are_refused(export: Path, folder: Path, name: str, tmp_path: Path) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(export / name)
    assert refusal(folder) == f"{name!r} is a link out of the folder: put the file itself there"
    (folder / name).unlink()
    shutil.copy(export / name, folder / "other")
    (folder / name).symlink_to("other")
    (tmp_path / "linked").symlink_to(folder)
    load_export(tmp_path / "linked")  # a link to the folder, and one inside
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert refusal(folder).startswith(f"{name} is not a regular file")


def test_names_that_no_folder_can_have() -> None:
    for name in ("x" * 5000, "~nobody/net", "local-dir:" + "y" * 5000, "a\0b"):
        with pytest.raises(ValueError, match=r"^(unknown model|there is no folder) "):
            find_network(name)


def test_the_check_takes_no_memory_and_no_random_numbers(export: Path) -> None:
    before = torch.get_rng_state()
    check_export(export)
    network = build_on_meta("resnet50_cifar", {"width": 1000})
    assert all(parameter.is_meta for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.empty(1).is_meta


@pytest.mark.slow
def test_networks_without_end_are_not_built(folder: Path) -> None:
    message = refusal_of_config(folder, lambda config: config["model_args"].update(layers=[900_000]))
    assert message == "this network can't be built: it has more than 10,000 modules, the most that is built"
    model = timm.create_model("resnet20", width=2, layers=(1,))  # the limit is gone again
    assert len(list(model.modules())) > 10


ARCHITECTURES: list[tuple[dict[str, Any], str]] = [
    ({"edges": {str(i): "none" for i in range(MAX_EDGES + 1)}}, "has at most 100,000 edges; got 100,001"),
    ({"model_args": {"a b": 1}}, "model_args has the key 'a b', which can't be the name of an argument"),
    ({"model": 3}, "an architecture's 'model' is 3; give the name"),
    ({"model": "hf-hub:a/b"}, "there is no network 'hf-hub:a/b' in timm or here"),
    ({"model_args": {"checkpoint_path": "x.pth"}}, OF_FILES.format("checkpoint_path")),
    ({"model_args": {"width": 10**9}}, "the integers in model_args add up to 1000000000"),
    ({"edges": {"x\ny": "none"}}, "the network has no edge 'x\\ny'"),
    ({"edges": {"x": ["none"] * 99}}, "edge 'x' has the choice ['none', 'none'"),
    ({"version": True}, "architecture of version True; this release reads 1"),
]


@pytest.mark.parametrize(("change", "message"), ARCHITECTURES, ids=lambda value: str(value)[:50])
def test_an_architecture_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    plain = Architecture("resnet20", {}, {})
    (tmp_path / "a.json").write_text(json.dumps({**plain.to_dict(), **change}))
    output = run_script(f"model={tmp_path / 'a.json'}", script="inspect_network.py")
    assert output.code == 2
    assert message in output.err
    assert output.err.endswith("; type the architecture.json of a run, or a folder\n")
    assert output.err.count("\n") == 1
    assert len(output.err) < 500


def test_python_values_that_json_lacks_are_refused() -> None:
    data = Architecture("resnet20", {}, {}).to_dict()
    for change, message in (
        ({"edges": {3: "none"}}, "has the key 3: keys are text"),
        ({"model_args": {"a": torch.ones(2)}}, "holds a Tensor"),
        ({"model_args": {"a": float("nan")}}, "holds nan"),
        ({"model_args": {"a": 10**9999}}, "more than 300 digits"),
    ):
        assert message in refusal_of(lambda change=change: Architecture.from_dict({**data, **change}))
    assert "got [1, 'a']" in refusal_of(lambda: Architecture.from_dict({1: 2, "a": 3}))


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" * 100)
    assert read_text(tmp_path / "a", "it", 100) == "x" * 100
    assert refusal_of(lambda: read_text(tmp_path / "a", "it", 99)).startswith("it is larger than ")
    assert "is not a regular file" in refusal_of(lambda: load_recipe(["recipe=/dev/zero"]))
