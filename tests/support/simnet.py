"""Two stacks back to back: a seeded network with delay, loss, reordering, duplication and
corruption, on a virtual clock. Nothing here sleeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from border0.netstack.stack import Stack


class Path:
    """One direction: probabilities in 0..1, delay and jitter in seconds."""

    def __init__(
        self,
        *,
        delay: float = 0.01,
        loss: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
        corrupt: float = 0.0,
        queue: int = 100000,
        rate: float = 0.0,
    ) -> None:
        self.delay = delay
        self.loss = loss
        self.reorder = reorder
        self.duplicate = duplicate
        self.corrupt = corrupt
        self.queue = queue
        self.rate = rate  # packets per second, 0: unlimited
        self.free_at = 0.0
        self.sent = 0
        self.dropped = 0


class SimulatedNetwork:
    """Moves packets between stack `a` and stack `b`; `now` is the virtual clock."""

    def __init__(
        self,
        a: Stack,
        b: Stack,
        *,
        seed: int = 1,
        there: Path | None = None,
        back: Path | None = None,
    ) -> None:
        self.stacks = (a, b)
        self.random = random.Random(seed)
        self.paths = (there or Path(), back or Path())
        self.now = 1000.0
        self.flight: list[tuple[float, int, int, bytes]] = []
        self.order = count()
        self.watch: Callable[[int, bytes], bool] | None = None  # False: drop
        self.largest_batch = 64

    def _send(self, side: int, packet: bytes) -> None:
        path, chance = self.paths[side], self.random.random
        path.sent += 1
        if self.watch is not None and not self.watch(side, packet):
            path.dropped += 1
            return
        if path.loss and chance() < path.loss:
            path.dropped += 1
            return
        at = self.now + path.delay
        if path.rate:
            path.free_at = max(path.free_at, self.now) + 1 / path.rate
            if path.free_at - self.now > path.queue / path.rate:
                path.free_at -= 1 / path.rate
                path.dropped += 1
                return
            at = path.free_at + path.delay
        if path.reorder and chance() < path.reorder:
            at += path.delay * (0.2 + chance())
        if path.corrupt and chance() < path.corrupt:
            where = self.random.randrange(len(packet))
            flipped = packet[where] ^ (1 << self.random.randrange(8))
            packet = packet[:where] + bytes((flipped,)) + packet[where + 1 :]
        heappush(self.flight, (at, next(self.order), 1 - side, packet))
        if path.duplicate and chance() < path.duplicate:
            heappush(self.flight, (at + path.delay / 3, next(self.order), 1 - side, packet))

    def flush(self) -> None:
        """Collect from both stacks until they are silent."""
        for side, stack in enumerate(self.stacks):
            while packets := stack.collect(128, self.now):
                for packet in packets:
                    self._send(side, packet)

    def step(self, until: float = float("inf")) -> bool:
        """Go to the next thing that happens; False when nothing is left before `until`."""
        self.flush()
        moments = [self.flight[0][0]] if self.flight else []
        for stack in self.stacks:
            deadline = stack.next_deadline()
            if deadline is not None:
                moments.append(deadline)
        if not moments or min(moments) > until:
            return False
        self.now = max(self.now, min(moments))
        batches: tuple[list[bytes], list[bytes]] = ([], [])
        while self.flight and self.flight[0][0] <= self.now:
            _, _, side, packet = heappop(self.flight)
            batches[side].append(packet)
            if len(batches[side]) >= self.largest_batch:
                break
        for side, stack in enumerate(self.stacks):
            if batches[side]:
                stack.receive(batches[side], self.now)
            deadline = stack.next_deadline()
            if deadline is not None and deadline <= self.now:
                stack.expire(self.now)
        self.flush()
        return True

    def run(self, seconds: float = 1e9, done: Callable[[], bool] | None = None) -> None:
        """Run for `seconds` of virtual time, or until `done()`, or until all is silent."""
        until = self.now + seconds
        while not (done is not None and done()):
            if not self.step(until):
                if seconds < 1e9:
                    self.now = until
                return
