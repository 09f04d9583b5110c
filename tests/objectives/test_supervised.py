"""Supervised training: views against torchvision and numpy, losses against timm and torch, accuracy by hand."""

import itertools
from dataclasses import replace

import kornia.augmentation
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from scipy.stats import binomtest, chisquare, ks_2samp
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from ssl_adapt.data import ImageSet
from ssl_adapt.evaluation.accuracy import Accuracy, evaluate_accuracy, logits_accuracy
from ssl_adapt.evaluation.features import normalise
from ssl_adapt.objectives import Supervised
from ssl_adapt.views import Views
from ssl_adapt.views.padded_crop import (
    CutoutGenerator,
    ImagewiseCutout,
    PaddedCropFlip,
    PaddedCropFlipGenerator,
    PaddedCropSettings,
    crop_padded_flip,
    padded_crop_view,
)

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
DARTS = PaddedCropSettings(32, 4, 0.5, 16, MEAN, STD)
VALUES = {"num_classes": 7, "label_smoothing": 0.1, "mixup_alpha": 0.8, "auxiliary_weight": 0.4}


def create_objective(num_classes: int = 7, **values: float) -> Supervised:
    backbone = timm.create_model("resnet20", num_classes=num_classes, width=4, layers=[1])
    chosen = {**VALUES, **values}
    del chosen["num_classes"]
    return Supervised(backbone, Views([padded_crop_view(DARTS)]), **chosen)


OBJECTIVE = create_objective()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def random_images(count: int, px: int = 32) -> Tensor:
    return torch.randint(256, (count, 3, px, px), dtype=torch.uint8)


def numpy_cutout(image: np.ndarray, y: int, x: int, side: int) -> None:
    height, width = image.shape[1:]
    for row, column in itertools.product(range(y - side // 2, y + side // 2), range(x - side // 2, x + side // 2)):
        if 0 <= row < height and 0 <= column < width:
            image[:, row, column] = 0


def torchvision_view(image: Tensor, corner: list[int], flip: bool, settings: PaddedCropSettings) -> Tensor:
    pixels = tv.crop(tv.pad(image.float() / 255, [settings.pad_px]), *corner, *image.shape[1:])
    return tv.normalize(tv.horizontal_flip(pixels) if flip else pixels, MEAN, STD)


@pytest.mark.parametrize(
    ("size_px", "pad_px", "cutout_px"), [(32, 4, 16), (32, 4, 0), (9, 0, 4), (5, 7, 12), (1, 1, 2)]
)
def test_views_equal_torchvision_and_numpy_bit_for_bit(size_px: int, pad_px: int, cutout_px: int) -> None:
    images = random_images(64, size_px)
    settings = replace(DARTS, size_px=size_px, pad_px=pad_px, cutout_px=cutout_px)
    view = padded_crop_view(settings)
    state = torch.get_rng_state()
    [ours] = Views([view])(images)
    torch.set_rng_state(state)
    # The draws depend on the state and the shape alone, so they can be had again without the images.
    crop = view.augmentations[0].forward_parameters(images.shape)
    cuts = [cut.forward_parameters(images.shape)["centre"].tolist() for cut in view.after_normalise]
    assert len(cuts) == (cutout_px > 0)
    for row, image in enumerate(images):
        view = torchvision_view(image, crop["corner"][row].tolist(), bool(crop["flip"][row]), settings).numpy()
        for centres in cuts:
            numpy_cutout(view, *centres[row], cutout_px)
        assert np.array_equal(ours[row].numpy(), view)
    assert 10 < crop["flip"].sum() < 54
    assert ours.shape == images.shape == (64, 3, size_px, size_px)


def test_padding_is_black_and_cutout_is_the_mean() -> None:
    white = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    seen = {round(value, 4) for value in Views([padded_crop_view(DARTS)])(white)[0][:, 0].flatten().tolist()}
    assert seen == {round((1 - MEAN[0]) / STD[0], 4), round(-MEAN[0] / STD[0], 4), 0.0}


def test_crops_flips_and_cuts_are_uniform() -> None:
    drawn = PaddedCropFlipGenerator(4, 0.3)((8100, 3, 32, 32))
    places, counts = drawn["corner"].unique(dim=0, return_counts=True)
    assert places.tolist() == [list(place) for place in itertools.product(range(9), repeat=2)]
    assert chisquare(counts).pvalue > 0.01
    assert binomtest(int(drawn["flip"].sum()), 8100, 0.3).pvalue > 0.01
    centre = CutoutGenerator()((6000, 3, 12, 5))["centre"]
    places, counts = centre.unique(dim=0, return_counts=True)
    assert places.tolist() == [list(place) for place in itertools.product(range(12), range(5))]
    assert chisquare(counts).pvalue > 0.01
    for generator in (PaddedCropFlipGenerator(4, 0.5), CutoutGenerator()):
        same = generator((9, 3, 32, 32), same_on_batch=True)
        assert all(len(values) == 9 and (values == values[0]).all() for values in same.values())
    for flip_p in (0.0, 1.0):
        assert (PaddedCropFlipGenerator(4, flip_p)((500, 3, 8, 8))["flip"] == bool(flip_p)).all()


def test_matrix_says_where_pixels_went() -> None:
    y, x = torch.meshgrid(torch.arange(11.0), torch.arange(11.0), indexing="ij")
    homogeneous = torch.stack([x, y, torch.ones_like(x)])
    crop = PaddedCropFlip(pad_px=3, flip_p=0.5)
    output = crop(homogeneous.expand(16, -1, -1, -1))
    mapped = torch.einsum("bij,bjhw->bihw", crop.transform_matrix, output)
    inside = output[:, 2] == 1  # 0 in the padding
    assert 16 * 8**2 <= inside.sum() < 16 * 11**2
    assert torch.equal(mapped.movedim(1, -1)[inside], homogeneous.expand(16, -1, -1, -1).movedim(1, -1)[inside])
    assert 0 < crop._params["flip"].sum() < 16


def test_operations_work_in_a_kornia_container_and_replay() -> None:
    images = torch.rand(6, 3, 16, 16)
    container = kornia.augmentation.AugmentationSequential(PaddedCropFlip(2, 0.5), ImagewiseCutout(4))
    output = container(images)
    assert torch.equal(container(images, params=container._params), output)
    assert not torch.equal(container(images), output)


def test_state_of_the_generator_repeats_the_views_and_nothing_else_does() -> None:
    images = random_images(32)
    strided = images.to(memory_format=torch.channels_last)
    first = Views([padded_crop_view(DARTS)])(images)[0]
    state = torch.get_rng_state()
    second = Views([padded_crop_view(DARTS)])(images)[0]
    for given, autocast in ((images, False), (images, True), (strided, False)):
        torch.set_rng_state(state)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            again = Views([padded_crop_view(DARTS)])(given)[0]
        assert torch.equal(again, second)
        assert (again.dtype, again.requires_grad) == (torch.float32, False)
    assert (first - second).abs().amax((1, 2, 3)).min() > 1e-3
    assert Views([padded_crop_view(DARTS)]).state_dict() == {}


def test_a_crop_leaves_its_input_unchanged() -> None:
    images = torch.rand(2, 1, 4, 4)
    before, corner = images.clone(), torch.tensor([[1, 1], [0, 2]])
    cropped = crop_padded_flip(images, corner, torch.tensor([False, True]), 1)
    assert torch.equal(cropped[0], images[0])
    assert torch.equal(cropped[1, 0, 1:, 1:], images[1, 0, :3, 1:].flip(1))
    assert torch.equal(images, before)


def test_wrong_images_and_settings_are_told_what_to_be() -> None:
    views = Views([padded_crop_view(replace(DARTS, size_px=8))])
    for images, message in (
        (torch.rand(2, 3, 8, 8), r"uint8.*got torch\.float32"),
        (torch.zeros(3, 8, 8).byte(), r"got \(3, 8, 8\); .*\[None\]"),
        (torch.zeros(0, 3, 8, 8).byte(), r"not empty, got \(0, 3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 9).byte(), r"got 8 x 9 px for views of 8 px; load the images at 8 px"),
    ):
        with pytest.raises(ValueError, match=message):
            views(images)
    wrong = {"size_px": 0, "pad_px": -1, "flip_p": 1.5, "cutout_px": 7, "mean": (0.5,), "std": (0.2, 0.0, 0.2)}
    assert wrong.keys() == DARTS.__dataclass_fields__.keys()
    for field, value in [*wrong.items(), ("cutout_px", -2)]:
        with pytest.raises(ValueError, match=rf"^{field} must be .*, got ") as raised:
            replace(DARTS, **{field: value})
        assert str(raised.value).endswith(repr(value))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_equals_timm_and_torch(smoothing: float) -> None:
    logits, labels = torch.randn(12, 7) * 3, torch.randint(7, (12,))
    loss = create_objective(label_smoothing=smoothing).loss((logits, labels))
    assert torch.equal(loss, F.cross_entropy(logits, labels, label_smoothing=smoothing))
    torch.testing.assert_close(loss, LabelSmoothingCrossEntropy(smoothing)(logits, labels))


@pytest.mark.parametrize("batch", [2, 5, 16])
def test_mixup_equals_the_formula_and_its_loss_timms(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels, logits = torch.randn(batch, 3, 4, 4), torch.arange(batch) % 7, torch.randn(batch, 7)
    before, state = images.clone(), torch.get_rng_state()
    mixed, targets = OBJECTIVE.mix(images, labels)
    assert torch.equal(images, before)
    lam = ((mixed - images.flip(0)) / (images - images.flip(0)))[0].median().item()
    assert 0.001 < lam < 0.999
    torch.testing.assert_close(mixed, lam * images + (1 - lam) * images.flip(0))
    hot = F.one_hot(labels, 7).float()
    torch.testing.assert_close(targets, lam * hot + (1 - lam) * hot.flip(0))
    torch.set_rng_state(state)
    assert all(torch.equal(a, b) for a, b in zip(OBJECTIVE.mix(images, labels), (mixed, targets), strict=True))
    assert not torch.equal(OBJECTIVE.mix(images, labels)[0], mixed)
    if batch % 2 == 0:  # timm refuses odd batches
        theirs = Mixup(mixup_alpha=0.8, label_smoothing=0.1, num_classes=7)
        monkeypatch.setattr(theirs, "_params_per_batch", lambda: (lam, False))
        their_images, their_targets = theirs(images.clone(), labels)
        torch.testing.assert_close(mixed, their_images)
        expected = SoftTargetCrossEntropy()(logits, their_targets)
        torch.testing.assert_close(OBJECTIVE.loss((logits, targets)), expected)


def test_share_of_mixup_is_beta_distributed() -> None:
    images, labels = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1), torch.tensor([0, 1])
    for alpha in (0.2, 1.0):
        objective = create_objective(mixup_alpha=alpha)
        shares = [objective.mix(images, labels)[0][0].item() for _ in range(1500)]
        assert ks_2samp(shares, np.random.default_rng(0).beta(alpha, alpha, 1500)).pvalue > 0.01
    unmixing = create_objective(mixup_alpha=0.0)
    state = torch.get_rng_state()
    unmixed = unmixing.mix(images, labels)
    assert unmixed[0] is images
    assert unmixed[1] is labels
    assert torch.equal(torch.get_rng_state(), state)  # nothing drawn


def test_auxiliary_logits_add_their_share_of_the_loss() -> None:
    logits, auxiliary = torch.randn(2, 12, 7, requires_grad=True)
    for targets in (torch.randint(7, (12,)), OBJECTIVE.mix(torch.rand(12, 1, 1, 1), torch.randint(7, (12,)))[1]):
        main, aside = OBJECTIVE.loss((logits, targets)), OBJECTIVE.loss((auxiliary, targets))
        torch.testing.assert_close(OBJECTIVE.loss((logits, auxiliary, targets)), main + 0.4 * aside)
        assert torch.equal(create_objective(auxiliary_weight=0.0).loss((logits, auxiliary, targets)), main)
    assert abs(main - aside) > 1e-3


def test_loss_is_float32_outside_autocast() -> None:
    logits, labels = torch.randn(12, 7).bfloat16(), torch.randint(7, (12,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = OBJECTIVE.loss((logits, labels))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, OBJECTIVE.loss((logits.float(), labels)))


def test_wrong_objectives_and_batches_are_told_what_to_be() -> None:
    wrong = {"num_classes": 1, "label_smoothing": 1.0, "mixup_alpha": -0.1, "auxiliary_weight": float("nan")}
    assert wrong.keys() == VALUES.keys()
    for field, value in wrong.items():
        with pytest.raises(ValueError, match=rf"^{field} must be .*, got {value}"):
            create_objective(**{field: value})
    with pytest.raises(ValueError, match=r"\(4, 9\) where \(4, 7\) belong; .*num_classes=7"):
        OBJECTIVE.loss((torch.zeros(4, 9), torch.zeros(4).long()))
    images, labels = torch.zeros(4, 3, 2, 2), torch.zeros(4).long()
    for pair in ((images.byte(), labels), (images, labels[:3]), (images, labels.float())):
        with pytest.raises(ValueError, match=r"float images .* int64 labels"):
            OBJECTIVE.mix(*pair)


def test_accuracy_of_logits_made_by_hand() -> None:
    ranks = torch.tensor([0, 0, 1, 4, 5, 6])  # of the right class, which is class 0 throughout
    logits = torch.stack([torch.tensor([0.5 - rank, *(-float(k) for k in range(6))]) for rank in ranks])
    accuracy = logits_accuracy(logits, torch.zeros(6).long())
    assert accuracy == Accuracy(2 / 6, 4 / 6, 6, accuracy.loss)
    assert accuracy.loss == pytest.approx((logits.logsumexp(1) - logits[:, 0]).mean().item(), rel=1e-6)
    few = logits_accuracy(torch.eye(3), torch.tensor([0, 1, 0]))
    assert (few.top1, few.top5, few.count) == (2 / 3, 1.0, 3)


@pytest.mark.parametrize("batch_size", [1, 5, 13, 100])
def test_accuracy_of_a_network_counts_every_image_and_leaves_it_alone(batch_size: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(192), nn.Linear(192, 6))
    network(torch.randn(32, 3, 8, 8))  # statistics that are not those of the initialisation
    network[2].eval()  # already frozen, as a user may have it
    state = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = random_images(13, 8), torch.randint(6, (13,))
    image_set = ImageSet("random", images, tuple("abcdef"), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        accuracy = evaluate_accuracy(
            network, image_set, mean=MEAN, std=STD, batch_size=batch_size, device="cpu", workers=0
        )
    assert [module.training for module in network] == [True, True, False, True]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    expected = logits_accuracy(network.eval()(normalise(images, MEAN, STD)).detach(), labels)
    assert (accuracy.top1, accuracy.top5, accuracy.count) == (expected.top1, expected.top5, 13)
    assert accuracy.loss == pytest.approx(expected.loss, rel=1e-5)


def test_accuracy_errors() -> None:
    arguments = {"mean": MEAN, "std": STD, "batch_size": 4, "device": "cpu", "workers": 0}
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), random_images(3, 8)
    with pytest.raises(ValueError, match="'plain' have no labels"):
        evaluate_accuracy(network, ImageSet("plain", images), **arguments)
    with pytest.raises(ValueError, match=r"2 logits and the labels reach 4; .*num_classes=5"):
        evaluate_accuracy(network, ImageSet("five", images, tuple("abcde"), torch.tensor([0, 4, 1])), **arguments)
