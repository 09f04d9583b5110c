"""Inspection: the table of edges, its JSON, the drawings, and what a user is told."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import timm

from ssl_adapt import Architecture, apply_architecture, export_timm
from ssl_adapt.report.drawings import CHANGED, draw_cells
from ssl_adapt.report.edge_table import describe_network

SCRIPT = Path(__file__).parent.parent / "scripts" / "inspect_network.py"
NETWORKS = ["resnet20", "resnet50_cifar", "darts", "mobilenetv2_nat", "mobilenetv2_cifar", "proxyless_mobile_cifar"]


def inspect(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_rows_add_up_to_the_network():
    network = describe_network(timm.create_model("resnet20"), 32)
    stem, classifier = 3 * 16 * 9 + 2 * 16, 64 * 10 + 10
    assert len(network.rows) == 27
    assert sum(row.parameters for row in network.rows) + stem + classifier == network.parameters == 269_722
    assert sum(row.macs for row in network.rows) + 3 * 16 * 9 * 32**2 + 640 == network.macs == 40_551_040
    row = next(row for row in network.rows if row.name == "layer2.0.conv1")
    assert (row.in_shape, row.out_shape) == ((16, 32, 32), (32, 16, 16))
    assert (row.full_group, row.cell_group) == ("layer2.0.conv1", "reduction.conv1")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_drawings_show_every_kind_of_cell_and_changes_in_red(name, suffix, tmp_path):
    specs = timm.create_model(name).edge_specs()
    changed = next(spec for spec in specs if spec.kind == "operation")
    path = draw_cells(specs, {changed.name: "identity"}, tmp_path / f"cells.{suffix}", title=name)
    if suffix == "png":
        assert path.read_bytes().startswith(b"\x89PNG")
        return
    text = path.read_text()
    words = [element.text for element in ElementTree.fromstring(text).iter() if element.text]
    assert f"{changed.operation} → identity" in words
    assert CHANGED in text
    plain = draw_cells(specs, {}, tmp_path / "plain.svg").read_text()
    words = [element.text for element in ElementTree.fromstring(plain).iter() if element.text]
    assert {spec.operation for spec in specs} <= set(words)
    assert {spec.target for spec in specs} <= set(words)
    assert CHANGED not in plain


def test_the_script_shows_an_export_and_writes_everything(tmp_path):
    model = timm.create_model("resnet20", width=4, layers=(1, 1))
    edges = {spec.name: "original" for spec in model.edge_specs()} | {"layer1.0.conv2": "identity"}
    apply_architecture(model, Architecture("resnet20", {}, edges))
    export_timm(model, tmp_path / "net")
    done = inspect(f"model={tmp_path / 'net'}", f"json={tmp_path / 'a.json'}", f"drawing={tmp_path / 'a.svg'}")
    assert done.returncode == 0, done.stderr
    assert "6 edges, 1 changed" in done.stdout
    written = json.loads((tmp_path / "a.json").read_text())
    assert [row["choice"] for row in written["edges"]].count("identity") == 1
    assert Architecture.from_dict(written["architecture"]).changed == {"layer1.0.conv2": "identity"}
    assert "conv 3x3 → identity" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=resnet2"], "unknown model 'resnet2'"),
        (["model=resnet20", "edges=layer1.*"], "declares its own edges"),
        (["model=resnet20", "drawing=a.bmp"], "a drawing is a .svg, .png or .pdf file"),
        (["model=resnet20", 'args={"block": "x"}'], "block='x' is not one of"),
    ],
)
def test_user_errors_are_one_sentence(arguments, message):
    done = inspect(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
