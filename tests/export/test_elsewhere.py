"""What was handed on, in a process that has no ssl_adapt: plain timm, the hub's stand-in, ONNX and torch.export."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapted_networks import adapted_network
from hub_stand_in import running_hub
from safetensors.torch import save_file

from ssl_adapt import export_timm
from ssl_adapt.export.graph import export_graph
from ssl_adapt.export.plain_timm import plain_timm

# In an empty folder, by python -I; the installation of this package is barred from being imported.
ELSEWHERE = """
import json, sys

class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ssl_adapt":
            raise ModuleNotFoundError("No module named 'ssl_adapt'", name="ssl_adapt")

sys.meta_path.insert(0, Bar())
try:
    import ssl_adapt
except ModuleNotFoundError as error:
    print(json.dumps(str(error)))
import timm, torch
from safetensors.torch import load_file

def difference(outputs, expected):
    return max(float((found - right).abs().max()) for found, right in zip(outputs, expected, strict=True))

folder = sys.argv[1]
right = load_file(f"{folder}/right.safetensors")
x = right["images"]
with torch.no_grad():
    for name in (f"local-dir:{folder}/net", "hf-hub:me/net"):
        model = timm.create_model(name, pretrained=True).eval()
        print(json.dumps(difference([model(x)], [right["logits"]])))
    graph = torch.export.load(f"{folder}/cells.pt2").module()
    print(json.dumps(difference(graph(x), [right["cells"]])))
    try:
        timm.create_model(f"local-dir:{folder}/cells", pretrained=True)
    except RuntimeError as error:
        print(json.dumps(str(error)))
import onnxruntime
session = onnxruntime.InferenceSession(f"{folder}/cells.onnx")
outputs = [torch.from_numpy(output) for output in session.run(None, {"images": x.numpy()})]
print(json.dumps(difference(outputs, [right["cells"]])))
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "ssl_adapt"]))
"""


@pytest.mark.slow
def test_a_process_without_this_package_loads_what_was_handed_on(tmp_path: Path) -> None:
    model = adapted_network("vit of timm, blocks", blocks__1="identity")
    cells = adapted_network("resnet20_nat")
    x = torch.randn(3, 3, 16, 16)
    plain, arguments = plain_timm(model)
    export_timm(plain, tmp_path / "net", extra_args=arguments)
    export_timm(cells, tmp_path / "cells")
    for ending in (".pt2", ".onnx"):
        export_graph(cells, tmp_path / f"cells{ending}")
    with torch.no_grad():
        right = {"images": x, "logits": model(x), "cells": cells(x)}
    save_file(right, tmp_path / "right.safetensors")
    (empty := tmp_path / "empty").mkdir()
    with running_hub() as hub:
        hub.repositories["me/net"] = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, "-I", "-c", ELSEWHERE, str(tmp_path)]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=300)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 7, done.stderr
    barred, local, from_hub, graph, unknown, onnx, imported = answers
    assert barred == "No module named 'ssl_adapt'"
    assert (local, from_hub, graph) == (0, 0, 0)
    assert unknown == "Unknown model (resnet20_nat)"  # what the model card says needs ssl_adapt
    assert 0 <= onnx < 1e-5
    assert imported == []
