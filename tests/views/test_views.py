"""The views against torchvision: each operation at equal parameters, the distribution of those, the whole."""

import itertools
from dataclasses import replace

import kornia.augmentation
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torch import Tensor
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from ssl_adapt.views import ResizedCropSettings, Views, resized_crop_view
from ssl_adapt.views.color import ImagewiseGrayscale, JitterGenerator, jitter_colors
from ssl_adapt.views.crop import CropFlipGenerator, RandomResizedCropFlip, central_box, crop_resize_flip

pytestmark = pytest.mark.exactness
RATIO, JITTER_TOLERANCE = (3 / 4, 4 / 3), 3e-5
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR = ResizedCropSettings(32, (0.08, 1.0), RATIO, True, 0.5, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, MEAN, STD)


def pair_of(settings: ResizedCropSettings) -> Views:
    return Views([resized_crop_view(settings)] * 2)


SIZES = [(32, 32, 32), (40, 23, 32), (8, 8, 16), (96, 64, 24), (300, 500, 64), (5, 9, 1), (1, 1, 4)]
ADJUST = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def colourful(count: int, height: int, width: int) -> Tensor:
    """Returns (count, 3, H, W) float32 images: noise, flat colours, pure colours, grays, black and white."""
    images = torch.rand(count, 3, height, width)
    images[1::6] = images[1::6, :, :1, :1]
    images[2::6] = images[2::6].round()  # channels tie, chroma is 1
    images[3::6] = images[3::6, :1]  # chroma is 0
    images[4::12], images[5::12] = 0.0, 1.0
    return images


def coordinates(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).float()  # homogeneous


def torchvision_crop(images: Tensor, box: Tensor, flip: Tensor, size_px: int, antialias: bool) -> Tensor:
    size = [size_px, size_px]
    pairs = zip(images, box.tolist(), strict=True)
    crops = torch.stack([tv.resized_crop(image, *sides, size, antialias=antialias) for image, sides in pairs])
    return torch.where(flip[:, None, None, None], tv.horizontal_flip(crops), crops)


def torchvision_jitter(image: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    for operation in order.tolist():
        image = ADJUST[operation](image, factors[operation].item())
    return image


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("height", "width", "size_px"), SIZES)
def test_crop_equals_torchvision(height: int, width: int, size_px: int, antialias: bool) -> None:
    torch.manual_seed(0)
    images = torch.rand(32, 3, height, width)
    drawn = CropFlipGenerator((0.01, 1.0), (0.3, 3.0), 0.5)(images.shape)
    box, flip = drawn["box"].clone(), drawn["flip"]
    box[:3] = torch.tensor([[0, 0, height, width], [height - 1, width - 1, 1, 1], [0, width - 1, height, 1]])
    ours = crop_resize_flip(images, box, flip, size_px, antialias)
    theirs = torchvision_crop(images, box, flip, size_px, antialias)
    # In float32 torchvision itself rounds the sampled places: at 96 px that moves its pixels by up to 5e-6.
    own_error = (theirs - torchvision_crop(images.double(), box, flip, size_px, antialias)).abs().max().item()
    assert own_error < 1e-5
    assert (ours - theirs).abs().max() <= max(1e-6, own_error)
    assert ours.shape == theirs.shape == (32, 3, size_px, size_px)
    assert 5 < flip.sum() < 27


def test_crop_matrix_says_where_pixels_went() -> None:
    torch.manual_seed(0)
    crop = RandomResizedCropFlip(40, scale=(0.1, 1.0), ratio=RATIO, flip_p=0.5, antialias=False)
    output = crop(coordinates(30, 50).expand(16, -1, -1, -1))
    # A ramp stays one when sampled bilinearly: each output pixel holds the place in the input that it shows.
    mapped = torch.einsum("bij,bjhw->bihw", crop.transform_matrix, output)
    top, left, box_height, box_width = (side[:, None, None] for side in crop._params["box"].unbind(1))
    inside = (output[:, 0] > left) & (output[:, 0] < left + box_width - 1)
    inside &= (output[:, 1] > top) & (output[:, 1] < top + box_height - 1)
    error = (mapped - coordinates(40, 40)).abs().amax(1)[inside]
    assert len(error) > 16 * 40**2 / 2
    assert error.max() < 1e-3
    assert 0 < crop._params["flip"].sum() < 16


def test_own_operations_work_in_a_kornia_container_and_replay() -> None:
    torch.manual_seed(0)
    images, points = torch.rand(6, 3, 20, 30), torch.rand(6, 4, 2) * 20
    operations = resized_crop_view(replace(CIFAR, jitter_p=0.5, grayscale_p=0.5)).augmentations
    container = kornia.augmentation.AugmentationSequential(*operations, data_keys=["input", "keypoints"])
    output, moved = container(images, points)
    homogeneous = torch.cat([points, torch.ones(6, 4, 1)], dim=-1)
    expected = homogeneous @ operations[0].transform_matrix.transpose(1, 2)
    torch.testing.assert_close(moved, expected[..., :2], atol=1e-4, rtol=0)
    again, _ = container(images, points, params=container._params)
    assert torch.equal(again, output)


@pytest.mark.parametrize("operation", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_jitter_operation_equals_torchvision(operation: int) -> None:
    torch.manual_seed(operation)
    values = (-0.5, -0.1, 0.0, 0.03, 0.37, 0.5) if operation == 3 else (0.0, 0.3, 0.6, 1.0, 1.4, 2.5)
    changed = 0
    for value in values:
        images = colourful(24, 9, 13)
        factors = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(24, 1)
        factors[:, operation] = value
        ours = jitter_colors(images, factors, torch.arange(4).repeat(24, 1), torch.ones(24, dtype=torch.bool))
        theirs = torch.stack([ADJUST[operation](image, value) for image in images])
        assert (ours - theirs).abs().max() <= JITTER_TOLERANCE
        changed += bool((ours - images).abs().max() > 1e-2)
    assert changed == len(values) - 1  # all but the neutral value


def test_jitter_in_every_order_equals_torchvision() -> None:
    torch.manual_seed(0)
    order = torch.tensor(list(itertools.permutations(range(4))))[torch.randperm(120) % 24]
    images = colourful(len(order), 8, 12)
    factors = JitterGenerator((0.8, 0.8, 0.8, 0.2), p=1.0)(images.shape)["factors"]
    chosen = torch.rand(len(order)) < 0.8
    ours = jitter_colors(images, factors, order, chosen)
    for row in chosen.nonzero().flatten().tolist():
        theirs = torchvision_jitter(images[row], factors[row], order[row])
        assert (ours[row] - theirs).abs().max() <= JITTER_TOLERANCE
    assert len(order[chosen].unique(dim=0)) == 24
    assert 0 < (~chosen).sum() < len(order)
    assert torch.equal(ours[~chosen], images[~chosen])
    assert torch.equal(jitter_colors(images, factors, order, torch.zeros_like(chosen)), images)
    assert (jitter_colors(images, factors, order.flip(1), chosen) - ours).abs().max() > 0.05  # order matters


def test_grayscale_equals_torchvision() -> None:
    torch.manual_seed(0)
    images = colourful(60, 7, 5)
    grayscale = ImagewiseGrayscale(p=0.4)
    ours = grayscale(images)
    chosen = grayscale._params["chosen"]
    assert 0 < chosen.sum() < 60
    assert torch.equal(ours[~chosen], images[~chosen])
    assert (ours[chosen] - tv.rgb_to_grayscale(images[chosen], 3)).abs().max() <= 1e-6


def torchvision_boxes(shape: tuple[int, int], scale: tuple[float, float], count: int) -> Tensor:
    image = torch.empty(3, *shape)
    return torch.tensor([RandomResizedCrop.get_params(image, scale, RATIO) for _ in range(count)])


def box_statistics(box: Tensor) -> Tensor:
    top, left, height, width = box.double().unbind(1)
    return torch.stack([height * width, width / height, top, left])


@pytest.mark.parametrize(("shape", "low"), [((32, 32), 0.08), ((24, 64), 0.08), ((200, 120), 0.3)])
def test_boxes_are_distributed_as_in_torchvision(shape: tuple[int, int], low: float) -> None:
    torch.manual_seed(0)
    count = 3000
    ours = CropFlipGenerator((low, 1.0), RATIO, 0.5)((count, 3, *shape))["box"]
    theirs = torchvision_boxes(shape, (low, 1.0), count)
    assert (ours >= torch.tensor([0, 0, 1, 1])).all()
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor(shape)).all()
    pairs = zip(box_statistics(ours), box_statistics(theirs), strict=True)
    assert min(ks_2samp(mine, them).pvalue for mine, them in pairs) > 0.01
    other = CropFlipGenerator((low + 0.05, 1.0), RATIO, 0.5)((count, 3, *shape))["box"]
    assert ks_2samp(box_statistics(other)[0], box_statistics(theirs)[0]).pvalue < 1e-4
    same = CropFlipGenerator((low, 1.0), RATIO, 0.5)((9, 3, *shape), same_on_batch=True)
    assert all(len(values) == 9 and (values == values[0]).all() for values in same.values())


@pytest.mark.parametrize("shape", [(10, 100), (100, 10)])
def test_boxes_that_never_fit_fall_back_to_the_centre(shape: tuple[int, int]) -> None:
    ours = CropFlipGenerator((1.0, 1.0), RATIO, 0.5)((50, 3, *shape))["box"]
    assert torch.equal(ours, torchvision_boxes(shape, (1.0, 1.0), 1).expand(50, 4))
    assert min(central_box(*shape, ratio=(500.0, 900.0))[2:]) == 1


def test_jitter_parameters_are_distributed_as_in_torchvision() -> None:
    torch.manual_seed(0)
    count = 4000
    reference = ColorJitter(0.4, 1.5, 0.2, 0.1)  # 1.5 reaches below 0 and is cut there
    drawn = JitterGenerator((0.4, 1.5, 0.2, 0.1), p=1.0)((count,))
    ranges = (reference.brightness, reference.contrast, reference.saturation, reference.hue)
    theirs = torch.tensor([ColorJitter.get_params(*ranges)[1:] for _ in range(count)])
    for ours, them, (low, high) in zip(drawn["factors"].T, theirs.T, ranges, strict=True):
        assert low - 1e-6 <= ours.min() < ours.max() <= high + 1e-6
        assert ks_2samp(ours, them).pvalue > 0.01
    orders, counts = drawn["order"].unique(dim=0, return_counts=True)
    assert orders.sort(1).values.tolist() == [[0, 1, 2, 3]] * 24
    assert chisquare(counts).pvalue > 0.01
    assert (torch.corrcoef(drawn["factors"].T) - torch.eye(4)).abs().max() < 4 / count**0.5
    same = JitterGenerator((0.4, 1.5, 0.2, 0.1), p=0.5)((9,), same_on_batch=True)
    assert all(len(values) == 9 and (values == values[0]).all() for values in same.values())


def test_each_thing_happens_with_its_own_probability() -> None:
    torch.manual_seed(0)
    shape = (20000, 3, 8, 8)
    for flip_p, jitter_p, grayscale_p in ((0.3, 0.8, 0.2), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0)):
        view = resized_crop_view(replace(CIFAR, flip_p=flip_p, jitter_p=jitter_p, grayscale_p=grayscale_p))
        crop, jitter, grayscale = (operation.forward_parameters(shape) for operation in view.augmentations)
        events = torch.stack([crop["flip"], jitter["chosen"], grayscale["chosen"]]).double()
        expected = torch.tensor([flip_p, jitter_p, grayscale_p], dtype=torch.float64)
        assert ((events.mean(1) - expected).abs() <= 4 * (expected * (1 - expected) / shape[0]).sqrt()).all()
        if 0 < flip_p < 1:
            assert (torch.corrcoef(events) - torch.eye(3)).abs().max() < 4 / shape[0] ** 0.5


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sizes", [(32, 32, 32), (21, 34, 16), (8, 8, 16)])
def test_views_equal_torchvision_on_replayed_draws(sizes: tuple[int, int, int], antialias: bool) -> None:
    torch.manual_seed(1)
    height, width, size_px = sizes
    images = (colourful(48, height, width) * 255).round().byte()
    settings = replace(CIFAR, size_px=size_px, antialias=antialias)
    views = pair_of(settings)
    operations = resized_crop_view(settings).augmentations
    torch.manual_seed(2)
    ours = views(images)
    torch.manual_seed(2)
    for view in ours:
        # The draws depend on the seed and the shape alone, so they can be had again without the images.
        draws = [operation.forward_parameters(images.shape) for operation in operations]
        crop, jitter, grayscale = draws
        theirs = torchvision_crop(images.float() / 255, crop["box"], crop["flip"], size_px, antialias)
        for row, image in enumerate(theirs):
            if jitter["chosen"][row]:
                theirs[row] = torchvision_jitter(image, jitter["factors"][row], jitter["order"][row])
            if grayscale["chosen"][row]:
                theirs[row] = tv.rgb_to_grayscale(theirs[row], 3)
        assert 0 < grayscale["chosen"].sum() < jitter["chosen"].sum() < len(theirs) == 48
        assert (view - tv.normalize(theirs, MEAN, STD)).abs().max() <= JITTER_TOLERANCE / min(STD)


def test_seed_repeats_the_views_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    views = pair_of(CIFAR)
    torch.manual_seed(3)
    first = views(images)
    state = torch.get_rng_state()
    second = views(images)
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(first, views(images), strict=True))
    torch.set_rng_state(state)
    assert all(torch.equal(a, b) for a, b in zip(second, pair_of(CIFAR)(images), strict=True))
    for a, b in itertools.combinations([*first, *second], 2):
        assert (a - b).abs().amax((1, 2, 3)).min() > 1e-3  # no image is the same twice


def test_views_are_float32_without_gradient_whatever_surrounds_them() -> None:
    images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    strided = images.to(memory_format=torch.channels_last)
    views = pair_of(CIFAR)
    results = []
    for given, autocast in ((images, False), (images, True), (strided, False)):
        torch.manual_seed(4)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            results.append(torch.stack(views(given)))
    assert all(torch.equal(result, results[0]) for result in results)
    assert (results[0].dtype, results[0].shape) == (torch.float32, (2, 8, 3, 32, 32))
    assert not results[0].requires_grad
    assert views.state_dict() == {}


@pytest.mark.parametrize(("shape", "size_px"), [((1, 3, 8, 8), 16), ((5, 3, 1, 1), 3), ((3, 3, 40, 7), 1)])
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_stay_flat(level: int, shape: tuple[int, ...], size_px: int) -> None:
    torch.manual_seed(5)
    images = torch.full(shape, level, dtype=torch.uint8)
    for view in pair_of(replace(CIFAR, size_px=size_px))(images):
        pixels = view * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        assert pixels.shape == (shape[0], 3, size_px, size_px)
        assert (pixels - pixels[:, :1, :1, :1]).abs().max() < 1e-5
        # Black stays black; white can only lose brightness, down to a factor of 0.6.
        assert 0.6 * level / 255 - 1e-3 <= pixels.min() <= pixels.max() <= level / 255 + 1e-5


def test_wrong_images_are_told_what_to_be() -> None:
    for images, message in (
        (torch.rand(2, 3, 8, 8), r"uint8.*got torch\.float32; .*\* 255"),
        (torch.zeros(3, 8, 8).byte(), r"\(B, 3, H, W\).*got \(3, 8, 8\); .*\[None\]"),
        (torch.zeros(2, 8, 8, 3).byte(), r"got \(2, 8, 8, 3\); .*permute"),
        (torch.zeros(0, 3, 8, 8).byte(), r"not empty, got \(0, 3, 8, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            pair_of(CIFAR)(images)
