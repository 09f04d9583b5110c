"""The order of an epoch, and its batches on the device."""

import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_adapt.data.image_set import ImageSet
from ssl_adapt.errors import UserError

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Batch(NamedTuple):
    """Images uint8 (B, 3, px, px) and labels int64 (B,) or None, on the device; their indices, on the CPU.

    The indices are positions in the image set; a training loop of your own may leave them out.
    """

    images: Tensor
    labels: Tensor | None = None
    indices: Tensor = torch.empty(0, dtype=torch.int64)


def epoch_order(count: int, *, seed: int, epoch: int) -> Tensor:
    """The permutation of range(count) for that epoch, int64 (count,); it depends on the three arguments alone.

    So a run that resumes at any epoch sees the images in the same order as one that was never stopped.
    Different seeds and epochs (both >= 0) give unrelated permutations: seed 0, epoch 1 is not seed 1, epoch 0.
    """
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(count))


def iterate_batches(
    image_set: ImageSet,
    order: Tensor,
    *,
    batch_size: int,
    device: torch.device | str,
    workers: int,
    drop_last: bool,
    decoder: "Decoder | None" = None,
) -> Iterator[Batch]:
    """The batches of `order` (int64 indices), the same whether the set is in memory or streams.

    A set in memory is indexed here, batch by batch; one that streams is decoded by `workers` processes (0:
    by this one), or by those of a `decoder` of the set, which stay for the next call. With `drop_last` an
    incomplete last batch is left out, which may leave none at all.
    Torch's global random state is not touched.

    Raises:
        ValueError: `batch_size` is below 1; later, from a set that streams: an image cannot be decoded (and,
            with `on_bad_image="replace"`, no other of its class can).
    """
    if batch_size < 1:
        raise UserError(f"data.batch_size={batch_size}: type a number of at least 1")
    chunks = [chunk for chunk in order.split(batch_size) if len(chunk) == batch_size or (len(chunk) and not drop_last)]
    on_gpu = torch.device(device).type == "cuda"
    return _batches(image_set, chunks, torch.device(device), decoder or Decoder(image_set, workers, pin_memory=on_gpu))


def _batches(image_set: ImageSet, chunks: list[Tensor], device: torch.device, decoder: "Decoder") -> Iterator[Batch]:
    on_gpu = device.type == "cuda"
    if isinstance(image_set.pixels, Tensor):
        batches = _select(image_set.pixels, chunks, pin_memory=on_gpu)
    else:
        batches = decoder.decode(chunks)
    for images, indices in zip(batches, chunks, strict=True):
        labels = None if image_set.labels is None else image_set.labels.index_select(0, indices).to(device)
        yield Batch(images.to(device, non_blocking=on_gpu), labels, indices)


def _select(pixels: Tensor, chunks: list[Tensor], *, pin_memory: bool) -> Iterator[Tensor]:
    for indices in chunks:
        # Pinned memory lets the copy to a GPU overlap with its work; torch keeps it until the copy is done.
        images = torch.empty(len(indices), *pixels.shape[1:], dtype=torch.uint8, pin_memory=pin_memory)
        yield torch.index_select(pixels, 0, indices, out=images)


class _Decoded(NamedTuple):
    """One batch from a worker: its images, or the error, and the bad images that it has not reported before."""

    images: Tensor | None
    error: str
    bad_images: dict[str, str]


@dataclass(frozen=True)
class _WholeBatches:
    """A map-style dataset, from indices to a batch; each worker has a copy with its own record of bad images."""

    image_set: ImageSet

    def __getitem__(self, indices: list[int]) -> _Decoded:
        record = self.image_set.bad_images
        reported = len(record)
        images, reason = None, ""
        try:
            images = self.image_set.images(torch.tensor(indices))
        # Raised in the worker, its message would be the worker's traceback.
        except ValueError as error:
            reason = str(error)
        return _Decoded(images, reason, dict(islice(record.items(), reported, None)))


def _ignore_stop_signals(worker: int) -> None:
    """Launchers signal the whole process group, which must not end the workers before the run has saved."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _block_stop_signals() -> Iterator[None]:
    """Blocks the signals; workers started inside inherit that, so that none ends them before they ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Decoder:
    """Decodes the images of a set that streams, in processes that start with the first batch and stay for all others.

    Args:
        image_set: decoded on demand.
        workers: processes; 0: this one.
        pin_memory: whether the batches go to a GPU.
    """

    def __init__(self, image_set: ImageSet, workers: int, *, pin_memory: bool) -> None:
        self._image_set = image_set
        self._workers = workers
        self._pin_memory = pin_memory
        self._order: list[list[int]] = []  # the loader looks through it anew each time
        self._loader: DataLoader[_Decoded] | None = None

    def decode(self, chunks: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of each chunk of indices, one call after the other.

        Raises:
            ValueError: an image cannot be decoded; the processes have ended then.
        """
        failure = ""
        self._order[:] = [chunk.tolist() for chunk in chunks]
        with warnings.catch_warnings(), _block_stop_signals():
            # of more workers than cores; their number is the user's, and some wait for a disk
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
            self._loader = self._loader or self._create_loader()
            decoded = iter(self._loader)
        for batch in decoded:
            self._image_set.bad_images.update(batch.bad_images)
            if batch.images is None:
                failure = batch.error
                break
            yield batch.images
        if failure:
            self._loader = None
            del decoded
            raise UserError(failure)

    def _create_loader(self) -> DataLoader[_Decoded]:
        return DataLoader(
            cast(Dataset[_Decoded], _WholeBatches(self._image_set)),
            batch_size=None,
            sampler=self._order,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=self._pin_memory,
            worker_init_fn=_ignore_stop_signals,
            generator=torch.Generator(),  # else the loader draws a seed from torch's global random state
        )
