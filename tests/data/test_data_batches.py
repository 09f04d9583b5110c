"""The order of an epoch, and its batches from memory and from a stream."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_folders import PX, all_images, tar_of, write_images

from ssl_adapt.data import Batch, Decoder, ImageSet, batches, epoch_order, iterate_batches, load_image_splits


@given(count=st.integers(0, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6))
def test_epoch_order_is_a_permutation_and_pure(count: int, seed: int, epoch: int) -> None:
    torch.manual_seed(epoch)
    order = epoch_order(count, seed=seed, epoch=epoch)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(count))
    torch.manual_seed(epoch + 1)
    assert torch.equal(order, epoch_order(count, seed=seed, epoch=epoch))


def test_epoch_orders_differ_by_seed_and_epoch() -> None:
    orders = {tuple(epoch_order(50, seed=s, epoch=e).tolist()) for s in range(20) for e in range(20)}
    assert len(orders) == 400
    # Any two agree in about one place of 50, as independent permutations do.
    first, second = epoch_order(5000, seed=0, epoch=1), epoch_order(5000, seed=1, epoch=0)
    assert (first == second).sum() < 20


@pytest.fixture(scope="module")
def both_forms(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    """The same 13 images in memory and streaming from a tar."""
    folder = tmp_path_factory.mktemp("both")
    names = [f"{label}/{i}.png" for i, label in enumerate("abcabcabcabca")]
    write_images(folder / "in", *names)
    tar = tar_of(folder / "in", folder / "in.tar", inside="in")
    held, streamed = (
        load_image_splits("folder", root=tar, image_px=16, memory_limit_bytes=limit).train
        for limit in (13 * 3 * 16 * 16, 13 * 3 * 16 * 16 - 1)
    )
    return held, streamed


def batches_of(image_set: ImageSet, order: torch.Tensor, *, workers: int, drop_last: bool) -> list[Batch]:
    batches = iterate_batches(image_set, order, batch_size=4, device="cpu", workers=workers, drop_last=drop_last)
    return list(batches)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_the_batches_of_memory(
    both_forms: tuple[ImageSet, ImageSet], workers: int, drop_last: bool
) -> None:
    held, streamed = both_forms
    assert isinstance(held.pixels, torch.Tensor)
    assert not isinstance(streamed.pixels, torch.Tensor)
    order = epoch_order(13, seed=1, epoch=2)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    pairs = list(
        zip(
            batches_of(held, order, workers=workers, drop_last=drop_last),
            batches_of(streamed, order, workers=workers, drop_last=drop_last),
            strict=True,
        )
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(first.indices) for first, _ in pairs] == ([4, 4, 4] if drop_last else [4, 4, 4, 1])
    for number, (first, second) in enumerate(pairs):
        assert torch.equal(first.indices, order[4 * number : 4 * number + 4])
        assert first.images.dtype == torch.uint8
        assert first.labels is not None
        assert second.labels is not None
        assert held.labels is not None
        assert torch.equal(first.labels, held.labels[first.indices])
        assert torch.equal(first.images, held.pixels[first.indices])
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None)  # type: ignore[arg-type]


def test_threads_decode_what_one_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = load_image_splits("digits", image_px=16)
    monkeypatch.setattr("ssl_adapt.data.image_set._SLOW_IMAGE_SEC", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    together, _ = load_image_splits("digits", image_px=16)
    assert torch.equal(all_images(together), all_images(alone))
    assert len(together) == 1297


def test_batches_of_part_of_an_order_and_without_labels(both_forms: tuple[ImageSet, ImageSet]) -> None:
    unlabelled = ImageSet("bare", both_forms[0].pixels)
    batches = batches_of(unlabelled, torch.tensor([12, 3, 3]), workers=0, drop_last=False)
    assert [batch.labels for batch in batches] == [None]
    assert torch.equal(batches[0].images[1], batches[0].images[2])
    for image_set in both_forms:
        assert batches_of(image_set, torch.tensor([1, 2, 3]), workers=0, drop_last=True) == []
        assert batches_of(image_set, torch.tensor([], dtype=torch.int64), workers=0, drop_last=False) == []


def test_batch_sizes_below_one_are_refused_at_once(both_forms: tuple[ImageSet, ImageSet]) -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size=0"):
        iterate_batches(both_forms[0], torch.arange(3), batch_size=0, device="cpu", workers=0, drop_last=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_of_a_stream_is_named(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path, "a.png")
    (tmp_path / "b.png").write_text("no image")
    train, _ = load_image_splits("folder", root=tmp_path, image_px=PX, memory_limit_bytes=0)
    with pytest.raises(ValueError, match=r"^cannot read the image 'b.png' in [^\n]*$"):
        batches_of(train, torch.arange(2), workers=workers, drop_last=False)
    assert multiprocessing.active_children() == []


def test_streaming_sets_can_be_sent_to_spawned_workers(both_forms: tuple[ImageSet, ImageSet]) -> None:
    held, streamed = both_forms
    again = pickle.loads(pickle.dumps(streamed))
    assert torch.equal(all_images(again), all_images(held))


def test_a_signal_to_a_worker_that_has_just_started_does_not_end_it(
    both_forms: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a launcher that signals the whole group: it waits until the worker ignores it."""
    streamed, ignore = both_forms[1], batches._ignore_stop_signals

    def signalled_first(worker: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ignore(worker)

    monkeypatch.setattr(batches, "_ignore_stop_signals", signalled_first)
    order = torch.arange(len(streamed))
    seen = list(iterate_batches(streamed, order, batch_size=2, device="cpu", workers=2, drop_last=False))
    assert sum(len(batch.images) for batch in seen) == len(streamed) == 13


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_processes_decode_epoch_after_epoch(both_forms: tuple[ImageSet, ImageSet], workers: int) -> None:
    """Each epoch its own order and number of batches, also after one that was left in the middle."""
    held, streamed = both_forms
    decoder, seen = Decoder(streamed, workers, pin_memory=False), set()
    for epoch, count in ((0, 13), (1, 13), (2, 9), (3, 13)):
        order = epoch_order(13, seed=1, epoch=epoch)[:count]
        found = iterate_batches(
            streamed, order, batch_size=4, device="cpu", workers=9, drop_last=False, decoder=decoder
        )
        if epoch == 1:
            assert torch.equal(next(found).images, all_images(held)[order[:4]])
            found.close()  # type: ignore[attr-defined]
        else:
            assert torch.equal(torch.cat([batch.images for batch in found]), all_images(held)[order])
        seen.add(frozenset(process.pid for process in multiprocessing.active_children()))
    assert [len(pids) for pids in seen] == [workers]
    del decoder, found
    assert multiprocessing.active_children() == []
