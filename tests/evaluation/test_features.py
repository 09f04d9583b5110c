"""Features are those of evaluation mode and leave the network alone; collapse measures in closed form."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from small_networks import Decoded
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize, ToTensor

from ssl_adapt.data import ImageSet
from ssl_adapt.evaluation.collapse import feature_std, rank_me
from ssl_adapt.evaluation.features import evaluation_mode, extract_features, normalise, raw_pixels

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def random_images(count: int, *, px: int = 8) -> Tensor:
    return torch.randint(256, (count, 3, px, px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def create_network() -> nn.Sequential:
    """BatchNorm and Dropout tell the modes apart; one BatchNorm is already frozen, as a user may have it."""
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 5, 3),
        nn.BatchNorm2d(5),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    network(torch.randn(32, 3, 8, 8))  # statistics that are not those of the initialisation
    network[4].eval()
    return network


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def extract(network: nn.Module, image_set: ImageSet, *, batch_size: int = 5, workers: int = 0) -> Tensor:
    return extract_features(
        network, image_set, mean=MEAN, std=STD, batch_size=batch_size, device="cpu", workers=workers
    )


def as_torchvision_does(images: Tensor) -> Tensor:
    transform = Compose([ToTensor(), Normalize(MEAN, STD)])
    return torch.stack([transform(image.permute(1, 2, 0).numpy()) for image in images])


def expected_features(network: nn.Module, images: Tensor) -> Tensor:
    with evaluation_mode(network), torch.no_grad():
        return network(as_torchvision_does(images))


@pytest.mark.parametrize("batch_size", [1, 5, 13, 100])
def test_features_are_those_of_evaluation_mode(batch_size: int) -> None:
    network, images = create_network(), random_images(13)
    expected = expected_features(network, images)
    features = extract(network, ImageSet("random", images), batch_size=batch_size)
    assert features.shape == (13, 5)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected)
    assert (features - network(normalise(images, MEAN, STD))).abs().max() > 1e-2  # train mode differs


def test_the_network_is_left_as_it_was() -> None:
    network = create_network()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    assert True in flags
    assert False in flags
    extract(network, ImageSet("random", random_images(7)))
    assert [module.training for module in network.modules()] == flags
    assert len(state) == 13
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_flags_come_back_after_an_error() -> None:
    network = create_network().append(nn.Linear(4, 2))  # one input too few
    flags = [module.training for module in network.modules()]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        extract(network, ImageSet("random", random_images(3)))
    assert [module.training for module in network.modules()] == flags


def test_a_set_that_streams_gives_the_same_features() -> None:
    network, images = create_network(), random_images(11)
    expected = extract(network, ImageSet("memory", images))
    assert torch.equal(extract(network, ImageSet("stream", Decoded(images))), expected)
    assert torch.equal(extract(network, ImageSet("stream", Decoded(images)), workers=1), expected)


@pytest.mark.parametrize("indices", [[4], [10, 0, 3, 3, 7, 1], []])
def test_features_and_pixels_of_some_images(indices: list[int]) -> None:
    network, images, wanted = create_network(), random_images(11), torch.tensor(indices, dtype=torch.int64)
    for image_set in (ImageSet("memory", images), ImageSet("stream", Decoded(images))):
        features = extract_features(
            network, image_set, mean=MEAN, std=STD, batch_size=4, device="cpu", workers=0, indices=wanted
        )
        assert features.shape == (len(indices), 5)
        torch.testing.assert_close(features, expected_features(network, images)[wanted])
        assert torch.equal(raw_pixels(image_set, wanted), raw_pixels(image_set)[wanted])


def test_autocast_outside_changes_nothing() -> None:
    network, image_set = create_network(), ImageSet("random", random_images(6))
    expected = extract(network, image_set)
    with torch.autocast("cpu", torch.bfloat16):
        assert network[0](torch.randn(1, 3, 8, 8)).dtype == torch.bfloat16
        features = extract(network, image_set)
    assert torch.equal(features, expected)


def test_a_probe_can_learn_on_the_features() -> None:
    features = extract(create_network(), ImageSet("random", random_images(6)))
    probe = nn.Linear(5, 2)
    probe(features).sum().backward()
    assert not features.requires_grad
    assert torch.allclose(probe.weight.grad, features.sum(dim=0).expand(2, 5))


def test_a_network_that_caches_trains_on_afterwards() -> None:
    class Scaled(nn.Module):
        """Keeps a table from its first forward, as some position embeddings do."""

        table: Tensor | None = None

        def forward(self, inputs: Tensor) -> Tensor:
            if self.table is None:
                self.table = torch.arange(1.0, inputs.shape[1] + 1)
            return inputs * self.table

    network, images = create_network().append(Scaled()), random_images(6)
    extract(network, ImageSet("random", images))
    network(normalise(images, MEAN, STD)).sum().backward()
    assert network[0].weight.grad.abs().sum() > 0


def test_a_method_inside_evaluation_mode() -> None:
    network, image_set = create_network(), ImageSet("random", random_images(6))
    with evaluation_mode(network):
        features = extract(network.forward, image_set)
    assert torch.equal(features, extract(network, image_set))


def test_extract_errors() -> None:
    network = create_network()
    with pytest.raises(ValueError, match=r"\(5, 3, 8, 8\) to \(5, 5, 1, 1\), not to \(B, D\)"):
        extract(network[:-1], ImageSet("random", random_images(6)))
    with pytest.raises(ValueError, match="at least 1 image"):
        extract(network, ImageSet("none", random_images(0)))


def test_normalise_equals_torchvision() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    assert torch.equal(normalise(images, MEAN, STD), as_torchvision_does(images))


def test_raw_pixels() -> None:
    images = random_images(4, px=3)
    pixels = raw_pixels(ImageSet("random", images))
    assert pixels.shape == (4, 27)
    assert pixels.dtype == torch.float32
    assert torch.equal((pixels * 255).round().to(torch.uint8).view(4, 3, 3, 3), images)
    assert torch.equal(raw_pixels(ImageSet("stream", Decoded(images))), pixels)


def test_rank_me_in_closed_form() -> None:
    line = torch.outer(torch.arange(1.0, 51), torch.tensor([1.0, -2.0, 0.5, 3.0]))
    assert rank_me(line) == pytest.approx(1, abs=1e-4)
    assert rank_me(torch.eye(8).repeat(5, 1) * 3) == pytest.approx(8, rel=1e-5)
    assert rank_me(torch.eye(16)[:6]) == pytest.approx(6, rel=1e-5)  # as many as there are rows
    # singular values 3 and 1: exp of the entropy of (3/4, 1/4)
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert rank_me(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected, rel=1e-5)
    assert rank_me(torch.zeros(4, 3)) == 0


def test_feature_std_in_closed_form() -> None:
    one_direction = torch.outer(torch.arange(1.0, 51), torch.tensor([1.0, -2.0, 0.5, 3.0]))
    assert feature_std(one_direction) == pytest.approx(0, abs=1e-7)
    assert feature_std(torch.ones(1, 4)) == 0
    both_ways = torch.cat([torch.eye(9), -torch.eye(9)]) * 7
    assert feature_std(both_ways) == pytest.approx(1 / 3, rel=1e-6)
    spread = torch.randn(4000, 64)
    assert feature_std(spread) == pytest.approx(1 / 8, rel=1e-2)
    assert feature_std(F.relu(spread)) < 0.9 / 8


def test_collapse_errors() -> None:
    for measure in (feature_std, rank_me):
        with pytest.raises(ValueError, match=r"shape \(3,\)"):
            measure(torch.ones(3))
        with pytest.raises(ValueError, match="not finite"):
            measure(torch.tensor([[1.0, math.nan]]))
