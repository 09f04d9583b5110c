"""`ssl-adapt export`: what it writes from a run, what it pushes, and what it refuses before torch is imported."""

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from adapted_networks import adapted_network
from hub_stand_in import TOKEN, Hub, running_hub
from script_calls import MEAN, PX, STD, create_export, create_run, run_command

from ssl_adapt import Architecture, export_timm, load_export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ours, exports of a tiny network, and of a vit of timm that lost a block."""
    folder = tmp_path_factory.mktemp("runs")
    create_run(folder / "run", create_export(folder / "exported"))
    overlay = {"input_size": (3, 8, 8), "mean": MEAN, "std": STD}
    tiny = timm.create_model("resnet20", width=4, layers=[1], num_classes=0, pretrained_cfg_overlay=overlay)
    export_timm(tiny, folder / "tiny")
    export_timm(adapted_network("vit of timm, blocks", blocks__1="identity"), folder / "vit")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    with running_hub() as hub:
        constants = huggingface_hub.constants  # where HF_ENDPOINT was read when it was imported
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in has none
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def export(*arguments: object) -> str:
    output = run_command("export", *map(str, arguments))
    assert output.code == 0, output.err
    return output.out


def test_a_run_becomes_a_folder_with_a_card(folder: Path, tmp_path: Path) -> None:
    printed = export(f"model={folder / 'run'}", f"out={tmp_path / 'net'}")
    assert "timm loads it with 'import ssl_adapt', as resnet20 is a network of ssl_adapt\n" in printed
    assert {path.name for path in (tmp_path / "net").iterdir()} == {
        "README.md", "cells.png", "config.json", "model.safetensors"
    }  # fmt: skip
    x = torch.randn(2, 3, PX, PX)
    before, after = (load_export(path).eval() for path in (folder / "exported", tmp_path / "net"))
    assert torch.equal(before(x), after(x))
    assert Architecture.of(after) == Architecture.of(before)
    card = (tmp_path / "net" / "README.md").read_text()
    assert "# debug\n" in card
    assert "![The cells; red edges have changed](cells.png)" in card
    assert "import ssl_adapt, timm\n" in card


def test_a_network_of_timm_becomes_plain_unless_its_edges_are_to_stay(folder: Path, tmp_path: Path) -> None:
    model = load_export(folder / "vit").eval()
    x = torch.randn(2, 3, 16, 16)
    for name, flags, words in (
        ("plain", (), "timm loads it without ssl_adapt"),
        ("edges", ("plain=false",), "timm loads it with 'import ssl_adapt', as plain=false keeps its edges"),
    ):
        assert words in export(f"model={folder / 'vit'}", f"out={tmp_path / name}", *flags)
        loaded = timm.create_model(f"local-dir:{tmp_path / name}", pretrained=True).eval()
        assert torch.equal(loaded(x), model(x))
        assert hasattr(loaded, "edge_specs") == (name == "edges")
        card = (tmp_path / name / "README.md").read_text()
        assert ("import timm\n" in card) == (name == "plain")
        assert "blocks.1 | Block | identity |" in card
    again = export(f"model={tmp_path / 'plain'}", f"out={tmp_path / 'again'}")  # its arguments are in config.json
    assert "without ssl_adapt" in again


def test_files_of_graphs(folder: Path, tmp_path: Path) -> None:
    printed = export(f"model={folder / 'tiny'}", f"out={tmp_path / 'net.pt2'}", "normalize=true", "format=torch_export")
    assert printed == f"{tmp_path / 'net.pt2'}: the largest difference from the network is 0, 0 of the largest output\n"
    graph = torch.export.load(tmp_path / "net.pt2").module()
    network = load_export(folder / "tiny").eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    x = torch.rand(5, 3, 8, 8)
    assert torch.equal(graph(x)[0], network((x - mean) / std))


def test_a_push_and_a_second_one_that_leaves_the_card_alone(folder: Path, hub: Hub, tmp_path: Path) -> None:
    printed = export(f"model={folder / 'run'}", "push=me/net")
    assert f"pushed: {hub.url}/me/net/commit/" in printed
    files = hub.repositories["me/net"]
    assert set(files) == {"README.md", "cells.png", "config.json", "model.safetensors"}
    assert hub.private == {"me/net": True}
    assert files["model.safetensors"] == (folder / "exported" / "model.safetensors").read_bytes()
    assert b'timm.create_model("hf-hub:me/net", pretrained=True' in files["README.md"]
    files["README.md"] = b"---\nlicense: apache-2.0\n---"
    del files["config.json"]
    printed = export(f"model={folder / 'run'}", "push=me/net", f"out={tmp_path / 'net'}")
    assert "the model card there was left as it is" in printed
    assert files["README.md"] == b"---\nlicense: apache-2.0\n---"
    assert "config.json" in files


def test_a_push_that_the_hub_refuses(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    output = run_command("export", f"model={folder / 'tiny'}", "push=me/net")
    assert output.code == 2
    assert output.err.startswith("error: push=me/net: ")
    assert "401" in output.err
    assert "'hf auth login' logs in" in output.err
    assert len(output.err.splitlines()) == 1
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=resnet20"], "out is missing: add out=PATH, or push=USER/NAME"),
        (["model=a", "out=a.onnx", "format=timm"], "format=timm needs a path that ends in neither .onnx nor .pt2, and"),
        (["model=a", "out=a", "format=onnx"], "format=onnx needs a path that ends in .onnx, and out=a is for timm"),
        (["model=a", "out=a.pt2", "push=me/a"], "push has a meaning for a folder for timm: leave it out"),
        (["model=a", "out=a", "normalize=true"], "normalize has a meaning for a file: out=NAME.onnx or out=NAME.pt2"),
        (["model=a", "out=no/a.onnx"], "out=no/a.onnx lies in no folder that exists"),
        (["model=a", "out=a", "private=false"], "private has a meaning with push=USER/NAME"),
        (["model=a", "push=net"], "push: got 'net', expected USER/NAME of the Hugging Face hub"),
        (["model=a", "out=a.onnx", "output=both"], "unknown key 'output'; did you mean 'outputs'?"),
    ],
)
def test_mistakes_in_the_arguments(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = run_command("export", *arguments)
    assert (output.code, output.out) == (2, "")
    assert output.err.startswith(f"error: {message}"), output.err
    assert list(tmp_path.iterdir()) == []


def test_mistakes_that_the_network_shows(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for arguments, message in (
        (["out=net", "plain=true"], "plain=true: timm alone can't build it, as resnet20 is a network of ssl_adapt"),
        ([f"out={tmp_path / 'full'}"], f"out={tmp_path / 'full'} is there already: name a folder that is new"),
        (["out=net.pt2", "outputs=logits"], "this network has no classifier, so it gives no logits: ask for features"),
    ):
        output = run_command("export", f"model={folder / 'run'}", *arguments)
        assert output.code == 2
        assert output.err.startswith(f"error: {message}"), output.err
