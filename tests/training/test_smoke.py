"""The quickstart, whole: about 15 s on two cores."""

import json

import pytest
import timm

from ssl_adapt import Architecture, load_recipe, pretrain


@pytest.mark.slow
def test_the_quickstart_learns_and_adapts(tmp_path):
    export = pretrain(load_recipe(["recipe=quickstart", f"run.dir={tmp_path / 'run'}"]))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    knn = result["knn_top1"]
    assert knn["result"] > 0.92
    assert knn["result"] > knn["after_fix"] > knn["untrained"]
    assert knn["after_fix"] == pytest.approx(knn["before_fix"], abs=0.005), "annealed, the fix changes next to nothing"
    loaded = timm.create_model(f"local-dir:{export}", pretrained=True, num_classes=0)
    assert Architecture.of(loaded).changed == result["changed"] != {}
