"""What a stream of writes has taken, and has no acknowledgement for yet."""

import asyncio
from collections import deque

import numpy as np
from numpy.typing import NDArray

from ccms_client.batches import NO_NUMBERS, Batch, SampleBuffer
from ccms_client.errors import StreamBrokenError

SAMPLE_BYTES = 20
"""What a sample takes in a batch, at most."""


class Outbox:
    """Batches in order, bounded in bytes: those that were sent, those to be sent, and a buffer for the next one.

    Who puts samples in waits while there is no room. A batch is cut from the buffer when it is full, has waited for
    long enough, or is to be flushed.
    """

    def __init__(self, *, batch_samples: int, linger_seconds: float, bytes_max: int) -> None:
        self._buffer = SampleBuffer(batch_samples)
        self._buffer_cut_at = 0.0  # on the clock of the loop, if the buffer is not empty
        self._linger_seconds = linger_seconds
        self._batch_bytes = SAMPLE_BYTES * batch_samples
        self._batches: deque[Batch] = deque()
        self._sent_count = 0
        self._window = 1
        self._bytes = 0
        self._bytes_max = bytes_max
        self._next_sequence = 1
        self._flushed_sequence = 0  # batches up to this one are cut without waiting for more samples
        self._changed = asyncio.Condition()
        self._failure: BaseException | None = None

    @property
    def first_sequence(self) -> int:
        """Number of the first batch that is not acknowledged."""
        return self._batches[0].sequence if self._batches else self._next_sequence

    @property
    def sample_count(self) -> int:
        """Samples that are not acknowledged."""
        return self._buffer.count + sum(batch.sample_count for batch in self._batches)

    async def add_samples(
        self, numbers: NDArray[np.uint32], timestamps: NDArray[np.int64], values: NDArray[np.float64]
    ) -> None:
        """Takes samples as soon as there is room; they are copied. All are arrays of shape (n_samples,).

        Raises:
            StreamBrokenError: The stream has ended.
        """
        taken = 0
        while taken < len(values):
            async with self._changed:
                await self._changed.wait_for(lambda: self._failure is not None or not self._buffer.is_full)
                self._check()
                if not self._buffer.count:
                    self._buffer_cut_at = asyncio.get_running_loop().time() + self._linger_seconds
                taken += self._buffer.append(numbers[taken:], timestamps[taken:], values[taken:])
                self._cut_due_batch()
                self._changed.notify_all()

    async def add_message(self, field: int, content: bytes, sample_count: int) -> None:
        """Takes a batch of another form, behind the samples that were taken before it.

        Args:
            field: Which field of `WriteStreamRequest` it is.
            content: The message of that field.
            sample_count: Samples in it.

        Raises:
            StreamBrokenError: The stream has ended.
        """
        async with self._changed:
            if self._buffer.count:
                self._flushed_sequence = self._next_sequence
            while self._failure is None and (self._buffer.count or not self._has_room(len(content))):
                self._cut_due_batch()
                self._changed.notify_all()
                if self._buffer.count or not self._has_room(len(content)):
                    await self._changed.wait()
            self._check()
            self._append(Batch(self._next_sequence, sample_count, field, content, NO_NUMBERS))
            self._changed.notify_all()

    async def flush(self) -> None:
        """Waits until all that was taken so far is acknowledged.

        Raises:
            StreamBrokenError: The stream has ended.
        """
        async with self._changed:
            last = self._next_sequence - (0 if self._buffer.count else 1)
            self._flushed_sequence = max(self._flushed_sequence, last)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._failure is not None or self.first_sequence > last)
            if self.first_sequence <= last:
                self._check()

    async def next_unsent(self) -> Batch:
        """Waits for the next batch to send."""
        async with self._changed:
            while True:
                self._cut_due_batch()
                if self._sent_count < min(len(self._batches), self._window):
                    self._sent_count += 1
                    return self._batches[self._sent_count - 1]
                await self._wait_for_linger()

    async def acknowledge(self, sequence: int, *, window: int) -> list[Batch]:
        """Forgets the batches up to a number, and returns them.

        Args:
            sequence: The number.
            window: Batches that may be sent and not acknowledged from now on.
        """
        async with self._changed:
            acknowledged = []
            self._window = window
            while self._batches and self._batches[0].sequence <= sequence:
                batch = self._batches.popleft()
                self._bytes -= batch.size
                self._sent_count = max(0, self._sent_count - 1)
                acknowledged.append(batch)
            self._cut_due_batch()
            self._changed.notify_all()
            return acknowledged

    def rewind(self) -> None:
        """Has all batches sent again."""
        self._sent_count = 0

    async def fail(self, cause: BaseException) -> None:
        """Lets everyone who waits, or comes later, know that nothing will be sent any more."""
        async with self._changed:
            self._failure = cause
            self._changed.notify_all()

    def _check(self) -> None:
        if self._failure is not None:
            raise StreamBrokenError(self._failure, self.sample_count) from self._failure

    def _has_room(self, size: int) -> bool:
        return not self._batches or self._bytes + size <= self._bytes_max

    def _cut_due_batch(self) -> None:
        """Makes a batch of the buffer if it is time to, and there is room."""
        if not self._buffer.count or not self._has_room(self._batch_bytes):
            return
        is_flushed = self._next_sequence <= self._flushed_sequence
        if self._buffer.is_full or is_flushed or asyncio.get_running_loop().time() >= self._buffer_cut_at:
            self._append(self._buffer.take(self._next_sequence))

    def _append(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._bytes += batch.size
        self._next_sequence += 1

    async def _wait_for_linger(self) -> None:
        """Waits until something has changed, or the buffer has waited for long enough."""
        waits = self._buffer.count and self._has_room(self._batch_bytes)
        try:
            async with asyncio.timeout_at(self._buffer_cut_at if waits else None):
                await self._changed.wait()
        except TimeoutError:
            return
