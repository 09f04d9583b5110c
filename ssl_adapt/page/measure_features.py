"""The features of a finished run's network, and the classes that it predicts, as the run itself measures them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from ssl_adapt.data import ImageSet, epoch_order
from ssl_adapt.data.image_dataset import FileImages
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.features import extract_features
from ssl_adapt.evaluation.frozen_network import find_network, load_network
from ssl_adapt.evaluation.knn import predict_classes
from ssl_adapt.evaluation.monitor import FeatureMonitor
from ssl_adapt.evaluation.neighbour_search import Neighbours, create_index, search_index
from ssl_adapt.evaluation.progress_bar import Begin
from ssl_adapt.runs.checkpoint import Checkpoints
from ssl_adapt.runs.run_record import RunRecord
from ssl_adapt.training.measurements import create_monitor
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.setting import create_stages, load_splits
from ssl_adapt.unit_rows import unit_rows

MOST_BANK = 50_000  # images; of more, a sample
MOST_QUERIES = 10_000


@dataclass(frozen=True)
class Features:
    """Images of a run, their features, and what was predicted.

    Attributes:
        images: what is shown: the test images, or where there are none the training images.
        is_test: whether they are test images.
        rows: their features (N, D), of length 1.
        predicted: their predicted classes (N,), or None where nothing can be predicted.
        bank: the training images, among which neighbours are looked for.
        bank_rows: their features.
        layer: which features these are.
        how: how the classes were predicted, in words.
        sample_note: how many of the run's images these are, in words; "" if all.
    """

    images: ImageSet
    is_test: bool
    rows: Tensor
    predicted: Tensor | None
    bank: ImageSet
    bank_rows: Tensor
    layer: str
    how: str
    sample_note: str

    @property
    def is_right(self) -> Tensor | None:
        """Whether each prediction is the image's label, (N,) bool; None where nothing was predicted."""
        if self.predicted is None or self.images.labels is None:
            return None
        return self.predicted == self.images.labels


def measure_features(run: RunRecord, begin: Begin) -> Features:
    """The features of a run's images, and the classes predicted by the run's own protocol.

    With the images of the run's own evaluation the predictions are those that its result counts; of more than
    `MOST_BANK` training or `MOST_QUERIES` test images a sample is taken. Images are read batch by batch.

    Raises:
        ValueError: the run is not exported yet, or its images can't be read; the message says what to do.
    """
    recipe = run.recipe
    name = find_network(str(run.folder))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begin("reading the list of images", None)
    train, test = load_splits(recipe.data, in_memory=False)
    stages = create_stages(recipe.data, recipe.train, recipe.adapt, len(train))
    monitor = create_monitor(recipe.data, recipe.knn, train, test, stages, recipe.seed, device)
    bank = _sample(monitor.bank, MOST_BANK)
    shown = monitor.queries or test
    images = bank if shown is None else _sample(shown, MOST_QUERIES)

    def extract(what: str, network: nn.Module, image_set: ImageSet) -> Tensor:
        return extract_features(
            network.to(device), image_set, mean=recipe.data.mean, std=recipe.data.std, batch_size=500, device=device,
            workers=recipe.data.workers, advance=begin(what, len(image_set)),
        )  # fmt: skip

    network = load_network(name, pretrained=True)
    if isinstance(monitor, FeatureMonitor) and monitor.protocol.layer == "projection":
        network = nn.Sequential(network, load_projector(run, train)).eval()
    bank_rows = extract("features of the training images", network, bank)
    rows = bank_rows if shown is None else extract("features of the test images", network, images)
    predicted = None
    if monitor.queries is not None and isinstance(monitor, FeatureMonitor) and bank.labels is not None:
        predicted = predict_classes(bank_rows, bank.labels, rows, monitor.protocol, advance=begin("kNN", len(rows)))
    elif monitor.queries is not None:
        classifier = load_network(name, pretrained=True, classifier=True)
        predicted = extract("classes of the test images", classifier, images).argmax(dim=1)
    protocol = monitor.protocol if isinstance(monitor, FeatureMonitor) else None
    return Features(
        images=images,
        is_test=shown is not None,
        rows=unit_rows(rows),
        predicted=predicted,
        bank=bank,
        bank_rows=unit_rows(bank_rows),
        layer=protocol.layer if protocol else "backbone",
        how=f"{protocol}, among {len(bank):,} training images" if protocol else "the network's classifier",
        sample_note=_sample_note(len(bank), len(monitor.bank), len(images), len(shown or bank)),
    )


def find_neighbours(features: Features, chosen: Tensor, k: int) -> Neighbours:
    """The k nearest training images of some of the images, or as many as there are; `classes` are places in the bank.

    An image that is in the bank itself is not its own neighbour.
    """
    own = 0 if features.is_test else 1
    index = create_index(features.bank_rows.contiguous(), k + own, None)
    found = search_index(index, torch.arange(len(features.bank)), features.rows[chosen].contiguous(), k + own)
    if not own:
        return found
    # stable, so that all others stay in their order; an equal image may be found in the place of the image itself
    order = (found.classes == chosen[:, None]).int().argsort(dim=1, stable=True)[:, :-1]
    return Neighbours(found.cosines.gather(1, order), found.classes.gather(1, order))


def file_names(images: ImageSet, indices: Tensor) -> list[str]:
    """The names of the files of some images; "" where they come from no files."""
    places = indices.tolist()
    pixels: object = images.pixels
    while isinstance(pixels, Subset):
        places = [pixels.indices[place] for place in places]
        pixels = pixels.dataset
    return [pixels.names[place] if isinstance(pixels, FileImages) else "" for place in places]


def load_projector(run: RunRecord, train: ImageSet) -> nn.Module:
    """The trained projector of a finished run, from its last checkpoint: the export does not hold it.

    Raises:
        ValueError: there is no whole checkpoint.
    """
    folder = run.folder / "checkpoints"
    saved = Checkpoints(folder, keep=1).load_newest()
    if saved is None:
        raise UserError(f"the run compares projections, and the projector's weights, in {folder}, are gone")
    state = saved.state["learner"]
    weights, prefix = (
        (state["network"], "projector.") if state["average"] is None else (state["average"]["weights"], "1.")
    )
    with torch.random.fork_rng(devices=[]):
        plain = run.recipe.model_copy(update={"adapt": None})
        projector: nn.Module = create_objective(plain, train, on_meta=True).network.heads[0]
    projector.load_state_dict(
        {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    )
    return projector


def _sample(images: ImageSet, most: int) -> ImageSet:
    """At most so many of the images, drawn once and for all."""
    if len(images) <= most:
        return images
    return images.subset(epoch_order(len(images), seed=0, epoch=0)[:most].sort().values)


def _sample_note(bank: int, whole_bank: int, images: int, whole_images: int) -> str:
    parts = [(images, whole_images, "images"), (bank, whole_bank, "training images for their neighbours")]
    words = [f"{part:,} of {whole:,} {what}" for part, whole, what in parts if part < whole]
    return f"A sample: {' and '.join(words)}." if words else ""
