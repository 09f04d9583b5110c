"""Few labels: which images they are, that this never changes, and runs on them."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from recipe_files import problems_of
from short_runs import SUPERVISED, load_checkpoint, run

from ssl_adapt.data import load_image_splits
from ssl_adapt.data.label_splits import split_labels
from ssl_adapt.evaluation.score import create_settings
from ssl_adapt.training.run_defaults import run_defaults

LABELS = torch.arange(3000) % 10
UNEVEN = torch.tensor([0] * 100 + [1] * 30 + [2] * 2)


def test_the_splits_are_those_that_were_published() -> None:
    """Another checksum would make results incomparable."""
    labels = load_image_splits("digits", image_px=8).train.labels
    published = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`digits` )?\| ([0-9.]+) \| ([0-9,]+) \| `([0-9a-f]{64})` \|$", published, re.MULTILINE)
    found = [split_labels(labels, share) for share in (0.01, 0.1, 1.0)]
    assert [(f"{split.share:g}", f"{len(split.indices):,}", split.sha256) for split in found] == rows[-3:]
    assert found[0].sha256.startswith("29b5e5de42dc")


def test_the_checksum_is_that_of_a_file_of_the_indices(tmp_path: Path) -> None:
    split = split_labels(LABELS, 0.01)
    (tmp_path / "indices").write_text("".join(f"{index}\n" for index in split.indices.tolist()))
    assert hashlib.sha256((tmp_path / "indices").read_bytes()).hexdigest() == split.sha256
    assert split.to_dict() == {"share": 0.01, "images": 30, "of": 3000, "sha256": split.sha256}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_classes_have_the_same_number_of_images(share: float) -> None:
    indices = split_labels(LABELS, share).indices
    assert LABELS[indices].bincount().tolist() == [round(300 * share)] * 10
    assert indices.tolist() == sorted(set(indices.tolist()))


def test_a_class_that_has_too_few_images_gives_all() -> None:
    assert UNEVEN[split_labels(UNEVEN, 0.5).indices].bincount().tolist() == [34, 30, 2]
    assert sorted(UNEVEN[split_labels(UNEVEN, 8 / 132).indices].bincount().tolist()) == [2, 3, 3]


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    shares = [set(split_labels(LABELS, share).indices.tolist()) for share in (0.01, 0.1, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2] < shares[3] == set(range(3000))


def test_the_split_depends_on_the_labels_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    first = split_labels(LABELS, 0.1)
    torch.manual_seed(2)
    assert split_labels(LABELS, 0.1).sha256 == first.sha256
    assert split_labels(LABELS.sort().values, 0.1).sha256 != first.sha256


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, r"data\.labelled_share=0\.0: type a number above 0, at most 1"),
        (1.5, r"data\.labelled_share=1\.5: type a number above 0, at most 1"),
        (0.001, r"data\.labelled_share=0\.001 is 3 of 3000 images, and there are 10 classes: type at least 0\.0033"),
    ],
)
def test_shares_that_cannot_be(share: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split_labels(LABELS, share)


def test_a_run_on_few_labels_sees_them_alone_and_names_them(tmp_path: Path) -> None:
    arguments = ["data.labelled_share=0.1", "data.batch_size=32", "train.epochs=1"]
    run(tmp_path / "a", *arguments, base=SUPERVISED)
    train = load_image_splits("digits", image_px=8).train
    split = split_labels(train.labels, 0.1)
    result = json.loads((tmp_path / "a/result.json").read_text())
    assert result["labels"] == split.to_dict()
    assert load_checkpoint(tmp_path / "a").step == 130 // 32
    settings = create_settings({"model": str(tmp_path / "a")}, run_defaults(str(tmp_path / "a")))
    assert settings.subject.labelled_share == 0.1
    part = load_image_splits("digits", image_px=8, labelled_share=0.1).train
    assert torch.equal(part.pixels, train.pixels[split.indices])


def test_what_uses_no_labels_refuses_a_share_of_them() -> None:
    assert problems_of("recipe=debug", "data.labelled_share=0.1") == [
        "data.labelled_share=0.1 is for objective.name=supervised, and simclr uses no labels: leave it out, or type "
        "data.train_images=NUMBER for fewer images"
    ]
    assert problems_of("recipe=supervised_resnet20", "data.labelled_share=0") == [
        "data.labelled_share: got 0, expected number above 0, at most 1 or null"
    ]
