"""What `scripts/knn_eval.py` is told; no torch is needed to read it."""

from typing import get_args

from ssl_adapt.arguments import NEW_FILE, POSITIVE, TEXT, TRUE_OR_FALSE, Key, one_of, whole_number
from ssl_adapt.data_names import DATA_NAMES
from ssl_adapt.evaluation.protocol import PRESETS, Weighting

SCORE_USAGE = """\
usage: python scripts/knn_eval.py model=MODEL [KEY=VALUE ...]

Classifies the test images by the labels of their nearest training images, in the features of a frozen network:
  model=runs/quickstart    model=runs/quickstart/export data=digits    model=resnet18 data=cifar10 image_px=64
"""
SCORE_KEYS = {
    "model": Key(TEXT, "a run folder, an export folder, local-dir:FOLDER, hf-hub:NAME or a name of timm", None),
    "data": Key(one_of(DATA_NAMES), "the images", "those of the run, where model is a run folder"),
    "root": Key(TEXT, "folder or tar that holds the images", "the run's; else the usual place of the data"),
    "image_px": Key(whole_number(1), "side of the square images that the network sees", "its input size"),
    "protocol": Key(one_of(tuple(PRESETS)), "how neighbours vote", "the run's; else simclr_cifar"),
    "k": Key(whole_number(1), "number of neighbours", "the protocol's"),
    "temperature": Key(POSITIVE, "a vote weighs exp(cosine / temperature)", "the protocol's"),
    "weighting": Key(one_of(get_args(Weighting)), "weight of a vote: by cosine, or one each", "the protocol's"),
    "search": Key(one_of(("exact", "ivf")), "ivf: look for neighbours in some lists of similar images only", "exact"),
    "probes": Key(whole_number(1), "with search=ivf: lists that are searched, of 4 sqrt(training images)", "none"),
    "baselines": Key(TRUE_OR_FALSE, "also score the network with random weights (seed 0) and raw pixels", "true"),
    "pretrained": Key(TRUE_OR_FALSE, "false: a network of timm with random weights (seed 0)", "true"),
    "batch_size": Key(whole_number(1), "images that the network sees at a time", "500"),
    "device": Key(TEXT, "where the network runs, such as cuda, cuda:1 or cpu", "cuda where there is one, else cpu"),
    "workers": Key(whole_number(0), "processes that decode images that do not fit into memory", "the run's; else 4"),
    "json": Key(NEW_FILE, "also write the scores to this file", "none is written"),
}  # fmt: skip
