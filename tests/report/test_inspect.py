"""Inspection: the table of edges, its JSON, the drawings, and what a user is told."""

import io
import json
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import pytest
import timm
from rich.console import Console
from script_calls import Output, run_script

from ssl_adapt import Architecture, apply_architecture, export_timm
from ssl_adapt.report.cell_chart import CHANGED
from ssl_adapt.report.cell_layout import BOX_HEIGHT, LABEL_PX, lay_out_cell, text_width
from ssl_adapt.report.drawings import draw_architecture, draw_cells
from ssl_adapt.report.edge_table import describe_network, print_network
from ssl_adapt.report.inspection import draw_network, load_for_inspection

NETWORKS = ["resnet20", "resnet50_cifar", "darts", "mobilenetv2_nat", "mobilenetv2_cifar", "proxyless_mobile_cifar"]


def inspect(*arguments: str) -> Output:
    return run_script(*arguments, script="inspect_network.py")


def words_of(path: Path) -> list[str]:
    return [element.text for element in ElementTree.parse(path).iter() if element.text and element.text.strip()]


def test_rows_add_up_to_the_network():
    network = describe_network(timm.create_model("resnet20"), 32)
    stem, classifier = 3 * 16 * 9 + 2 * 16, 64 * 10 + 10
    assert len(network.rows) == 27
    assert sum(row.parameters for row in network.rows) + stem + classifier == network.parameters == 269_722
    assert sum(row.macs for row in network.rows) + 3 * 16 * 9 * 32**2 + 640 == network.macs == 40_551_040
    row = next(row for row in network.rows if row.name == "layer2.0.conv1")
    assert (row.in_shape, row.out_shape) == ((16, 32, 32), (32, 16, 16))
    assert (row.full_group, row.cell_group) == ("layer2.0.conv1", "reduction.conv1")


def test_rows_of_an_adapted_network():
    plain = timm.create_model("resnet50_cifar", layers=(1, 2), width=4, num_classes=0)
    choices = {"layer1.0.conv2": "none", "layer2.1.null3": "identity", "layer2.0.shortcut": "identity"}
    edges = {spec.name: choices.get(spec.name, "original") for spec in plain.edge_specs()}
    apply_architecture(plain, Architecture("resnet50_cifar", {}, edges))
    before = [type(module) for module in plain.modules()]
    network = describe_network(plain, 16)
    assert [type(module) for module in plain.modules()] == before, "the network itself is left alone"
    rows = {row.name: row for row in network.rows}
    assert {name: row.choice for name, row in rows.items() if row.choice != "original"} == choices
    changed = rows["layer2.0.shortcut"]
    assert (changed.original, changed.operation) == ("conv 1x1", "identity")
    assert rows["layer1.0.conv2"].parameters == rows["layer1.0.conv2"].macs == 0
    assert rows["layer1.0.null1"].operation == "none"
    assert all(row.in_shape and row.out_shape for row in rows.values()), "none edges have shapes too"
    null = rows["layer2.0.null3"]
    assert (null.in_shape, null.out_shape) == ((4, 16, 16), (32, 8, 8))
    stem = 3 * 4 * 9 + 2 * 4
    assert sum(row.parameters for row in network.rows) + stem == network.parameters
    assert sum(row.macs for row in network.rows) + 3 * 4 * 9 * 16**2 == network.macs
    assert json.loads(network.to_json())["changed_count"] == 3


def test_edges_that_nothing_reads_cost_nothing():
    """Without 4->5 nothing reads node 4, nor node 3 before it; the shapes there are still told."""
    plain = timm.create_model("resnet20_nat", channels=4, cells=3, num_classes=0)
    choices = {"layer1.0.edge_4_5": "none"}
    edges = {spec.name: choices.get(spec.name, "original") for spec in plain.edge_specs()}
    apply_architecture(plain, Architecture("resnet20_nat", {}, edges))
    network = describe_network(plain, 16)
    rows = {row.name: row for row in network.rows}
    assert rows["layer1.0.edge_2_3"].macs == rows["layer1.0.edge_3_4"].macs == 0
    assert rows["layer2.0.edge_2_3"].macs > 0
    assert all(row.in_shape and row.out_shape for row in rows.values())
    stem, preprocessing = 3 * 12 * 9 * 16**2, (12 * 4 + 4 * 8) * 16**2 + 8 * 16 * 8**2
    assert sum(row.macs for row in network.rows) + stem + preprocessing == network.macs


def test_blocks_that_take_more_than_one_tensor_are_counted():
    """A block of a network of ours is given the output of the block before the last too."""
    network = describe_network(timm.create_model("resnet20", width=4, layers=(2, 2), granularity="branch"), 16)
    assert {row.name for row in network.rows} == {"layer1.0", "layer1.1", "layer2.1"}
    assert network.rows[0].macs == 2 * 4 * 4 * 9 * 16**2


def test_table_names_what_changed_and_fits_the_terminal():
    model = timm.create_model("resnet50_cifar")
    edges = {spec.name: "original" for spec in model.edge_specs()} | {"layer4.2.conv2": "identity"}
    apply_architecture(model, Architecture("resnet50_cifar", {}, edges))
    network = describe_network(model, 32)
    for width in (110, 120):
        console = Console(width=width, file=io.StringIO(), force_terminal=True)
        print_network(network, console)
        lines = console.file.getvalue().splitlines()
        assert len(lines) == len(network.rows) + 6, "no row takes two lines"
        (changed,) = (line for line in lines if "conv 3x3 → identity" in line)
        assert "\x1b[31m" in changed
        assert "reduction.shortcut" in console.file.getvalue()


@pytest.mark.parametrize("name", NETWORKS)
def test_drawings_show_every_edge_and_changes_in_red(name, tmp_path):
    specs = timm.create_model(name).edge_specs()
    changed = next(spec for spec in specs if spec.kind == "operation")
    path = draw_cells(specs, {changed.name: "identity"}, tmp_path / "cells.svg", title=name)
    assert f"{changed.operation} → identity" in words_of(path)
    assert CHANGED in path.read_text()
    plain = draw_architecture(specs, None, tmp_path / "plain.svg")
    words = words_of(plain)
    assert {spec.operation for spec in specs} <= set(words)
    assert {spec.target for spec in specs} <= set(words)
    assert CHANGED not in plain.read_text()
    again = draw_cells(specs, {}, tmp_path / "again.svg")
    assert again.read_bytes() == plain.read_bytes()


def test_equal_cells_are_drawn_once(tmp_path):
    specs = timm.create_model("resnet20").edge_specs()
    words = words_of(draw_cells(specs, {"layer2.1.conv1": "none"}, tmp_path / "cells.svg"))
    captions = ["normal, 6 cells", "reduction, 2 cells", "normal, 1 cell"]
    assert [word for word in words if word.endswith(("cell", "cells"))] == captions
    assert {"layer1.0-2, layer2.2, layer3.1-2", "layer2.0, layer3.0", "layer2.1"} <= set(words)
    assert words.count("conv 3x3") == 5


def test_the_kind_of_an_edge_is_no_change(tmp_path):
    specs = timm.create_model("resnet20").edge_specs()
    choices = {spec.name: "identity" for spec in specs if spec.kind == "identity"}
    assert CHANGED not in draw_cells(specs, choices, tmp_path / "cells.svg").read_text()


@pytest.mark.parametrize("name", NETWORKS)
def test_no_labels_or_boxes_overlap(name):
    cells: dict[str, list] = {}
    for spec in timm.create_model(name).edge_specs():
        cells.setdefault(spec.cell, []).append(spec)
    compared = 0
    unlike = {tuple((s.source, s.target, s.operation) for s in edges): edges for edges in cells.values()}
    for edges in unlike.values():
        for mark in ("", " → identity"):
            labels = {spec.name: spec.operation + mark for spec in edges}
            layout = lay_out_cell(edges, labels)
            boxes = [(node.x, node.y, node.half_width, BOX_HEIGHT / 2) for node in layout.nodes]
            boxes += [
                (*arrow.label_at, text_width(labels[arrow.spec.name], LABEL_PX) / 2, LABEL_PX / 2)
                for arrow in layout.arrows
            ]
            assert len(boxes) == len({s.source for s in edges} | {s.target for s in edges}) + len(edges)
            for (x, y, half, up), (other_x, other_y, other_half, other_up) in combinations(boxes, 2):
                compared += 1
                assert abs(x - other_x) > half + other_half or abs(y - other_y) > up + other_up
            for x, y, half, up in boxes:
                assert -1e-6 <= x - half <= x + half <= layout.width + 1e-6
                assert layout.bottom <= y - up <= y + up <= layout.top
    assert compared > 20


def test_blocks_of_a_timm_network_are_drawn_one_by_one(tmp_path):
    model, image_px = load_for_inspection({"model": "vit_tiny_patch16_224", "args": {"img_size": 32, "depth": 3}})
    network = describe_network(model, image_px)
    assert (network.model, image_px, len(network.rows)) == ("vit_tiny_patch16_224", 32, 3)
    assert network.rows[0].in_shape == (5, 192)
    draw_network(network, tmp_path / "cells.svg")
    words = words_of(tmp_path / "cells.svg")
    assert "blocks.0-2" in words
    assert words.count("Block") == 1, "blocks run one after the other, so they are not drawn side by side"


def test_inputs_are_on_the_left_and_out_is_on_the_right():
    edges = [s for s in timm.create_model("resnet50_cifar").edge_specs() if s.cell == "layer1.0"]
    nodes = {node.name: node for node in lay_out_cell(edges, {spec.name: spec.operation for spec in edges}).nodes}
    assert {name for name, node in nodes.items() if node.is_input} == {"in", "before"}
    assert nodes["in"].x == nodes["before"].x < nodes["1"].x < nodes["2"].x < nodes["out"].x


def test_the_script_shows_an_export_and_writes_everything(tmp_path):
    model = timm.create_model("resnet20", width=4, layers=(1, 1))
    edges = {spec.name: "original" for spec in model.edge_specs()} | {"layer1.0.conv2": "identity"}
    apply_architecture(model, Architecture("resnet20", {}, edges))
    export_timm(model, tmp_path / "net")
    done = inspect(f"model={tmp_path / 'net'}", f"json={tmp_path / 'a.json'}", f"drawing={tmp_path / 'a.svg'}")
    assert done.code == 0, done.err
    assert "6 edges, 1 changed" in done.out
    assert "conv 3x3 → identity" in done.out
    written = json.loads((tmp_path / "a.json").read_text())
    assert [row["choice"] for row in written["edges"]].count("identity") == 1
    assert Architecture.from_dict(written["architecture"]).changed == {"layer1.0.conv2": "identity"}
    assert "conv 3x3 → identity" in (tmp_path / "a.svg").read_text()


def test_architectures_without_an_export(tmp_path):
    model = timm.create_model("resnet20", width=4, layers=(1, 1))
    edges = {spec.name: "original" for spec in model.edge_specs()} | {"layer1.0.conv2": "none"}
    architecture = Architecture("resnet20", model.model_args, edges)
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "architecture.json").write_text(architecture.to_json())
    for path in (tmp_path, tmp_path / "architecture.json"):
        loaded, image_px = load_for_inspection({"model": str(path)})
        assert Architecture.of(loaded).edges == edges
        assert image_px == 32
    network = describe_network(loaded, 32)
    draw_network(network, tmp_path)
    assert (tmp_path / "cells.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "conv 3x3 → none" in words_of(tmp_path / "cells.svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=resnet2"], "unknown model 'resnet2'"),
        (["model=resnet20", "edges=layer1.*"], "declares its own edges"),
        (["model=resnet20", "drawing=a.bmp"], "drawing: got 'a.bmp', expected .svg, .png, .pdf, .dot or .mmd file"),
        ([f"model={__file__}"], "type the architecture.json of a run"),
        (["model=resnet20", 'args={"block": "x"}'], "block='x' is not one of"),
    ],
)
def test_user_errors_are_one_sentence(arguments, message):
    done = inspect(*arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
