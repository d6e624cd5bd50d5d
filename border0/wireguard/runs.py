"""Neighbouring datagrams of one source and size as one run, as if the kernel had joined them.

Source: our own.
Does not: look into datagrams.
"""

from collections.abc import Hashable, Iterator, Sequence

Run = tuple[list[bytes], int, Hashable]


def runs(batch: Sequence[tuple[bytes, int, Hashable]]) -> Iterator[Run]:
    """Yield (buffers, segment size, source) in order; each buffer is whole datagrams of the size.

    A buffer of the batch holds datagrams of its segment size, of which the last may be shorter: it
    begins a run of its own.
    """
    run: list[bytes] = []
    run_size = 0
    run_source: Hashable = None
    for buffer, size, source in batch:
        total = len(buffer)
        if size <= 0 or size > total:
            size = total
        if run and (size != run_size or source != run_source):
            yield run, run_size, run_source
            run = []
        odd = total % size if total else 0
        if odd:
            run.append(buffer[:-odd])
            yield run, size, source
            run = [buffer[-odd:]]
            size = odd
        else:
            run.append(buffer)
        run_size = size
        run_source = source
    if run:
        yield run, run_size, run_source
