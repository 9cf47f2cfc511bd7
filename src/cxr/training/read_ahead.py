"""Batches that threads make while the network trains."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import keras

from cxr.cpu import available_cores
from cxr.training.batches import Batches

LOADER_THREADS = min(8, max(2, available_cores()))
"""Number of threads that make batches while the network computes; OpenCV and NumPy release Python's lock."""


class ReadAhead(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Hands batches to Keras in order; threads make the next ones meanwhile.

    Keras's own queue is not used: it takes about 2 ms per batch, which is longer than a small network trains on it
    (``benchmarks/feeding.py``). Batches that only name images on the device are made when they are needed, which is
    faster than passing them between threads.
    """

    def __init__(self, batches: Batches, threads: int = LOADER_THREADS) -> None:
        """Start no thread yet.

        Args:
            batches: the batches; their epoch may change between two passes.
            threads: threads that make batches.
        """
        # One worker: Keras reads in the order of the batches, without its queue.
        super().__init__(workers=1, use_multiprocessing=False)
        self.batches = batches
        self._threads = threads if batches.is_made_ahead else 0
        self._pool = ThreadPoolExecutor(max(1, self._threads), thread_name_prefix="batches")
        self._pending: dict[tuple[int, int], Future[tuple[Any, ...]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Wait for a batch, and have the threads make the next ones.

        Args:
            index: number of the batch, from 0.

        Returns:
            The batch.
        """
        if not self._threads:
            return self.batches[index]
        epoch = self.batches.epoch
        for number in range(index, min(index + 1 + 2 * self._threads, len(self))):
            if (epoch, number) not in self._pending:
                self._pending[epoch, number] = self._pool.submit(self.batches.__getitem__, number)
        return self._pending.pop((epoch, index)).result()

    def for_fit(self) -> Any:
        """Prepare these batches for Keras's ``fit``.

        On TensorFlow, Keras would make a data set of them in each call of ``fit``, with autotuning. When an iterator of
        that kind ends, it often waits: the thread that tunes is woken before the iterator is marked as cancelled
        (``CancellationManager``), and sleeps on for as long as it has run, at most a minute (``OptimizeLoop`` in
        ``tensorflow/core/framework/model.cc``). An epoch could last twice as long.

        Returns:
            On TensorFlow a ``tf.data.Dataset`` without autotuning, which reads the current epoch each time it is passed
            through; on other backends these batches themselves.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        import tensorflow

        signature = keras.tree.map_structure(
            lambda array: tensorflow.TensorSpec((None, *array.shape[1:]), array.dtype), self.batches[0]
        )
        options = tensorflow.data.Options()
        options.autotune.enabled = False
        batches = tensorflow.data.Dataset.from_generator(
            lambda: (self[number] for number in range(len(self))), output_signature=signature
        )
        counted = batches.apply(tensorflow.data.experimental.assert_cardinality(len(self)))
        return counted.prefetch(2).with_options(options)
