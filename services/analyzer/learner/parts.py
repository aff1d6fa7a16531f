"""What is published: the state of the fold as records of ``learned-models``, in parts under one version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

import msgspec
import numpy as np

from libs.common.clock import Millis
from libs.common.contracts.learned_model import (
    COMPLEMENTS,
    MAX_PART_BYTES,
    POPULARITY,
    ComplementsPart,
    Manifest,
    Neighbour,
    Popular,
    PopularityPart,
    encode_learned,
    part_key,
)
from services.analyzer.learner.complements import lift_row
from services.analyzer.learner.fold import Fold

PART_BYTES = 128_000
"""Aim for the size of a part; half of what is allowed leaves room for uneven ones."""
MAX_POPULAR = 20_000
"""Products whose popularity is published, the most popular."""
MAX_LOOSE = 2_000
"""Products beyond the solution whose neighbours are published, the most popular."""

EASE, LIFT = "ease", "lift"


class Content(NamedTuple):
    """What a version says, before it has a number."""

    journal_time: Millis
    orders: int
    popularity: list[list[Popular]]
    complements: list[dict[str, list[Neighbour]]]
    methods: list[dict[str, str]]


def content_of(fold: Fold, journal_time: Millis, solved: Solved) -> Content:
    """What ``fold`` has learned; a function of its state and nothing else."""
    neighbours = dict(solved.rows(fold))
    methods = dict.fromkeys(neighbours, EASE)
    for product_id, row in _loose_rows(fold):
        neighbours[product_id] = row
        methods[product_id] = LIFT
    parts = _spread(neighbours)
    return Content(
        journal_time=journal_time,
        orders=fold.counts.orders,
        popularity=list(_chunks(_popular(fold))),
        complements=parts,
        methods=[{product_id: methods[product_id] for product_id in part} for part in parts],
    )


class Solved:
    """The lists of the latest solution, kept because they change only when it does."""

    def __init__(self) -> None:
        self._of: object = None
        self._rows: dict[str, list[Neighbour]] = {}

    def rows(self, fold: Fold) -> dict[str, list[Neighbour]]:
        """By product that has any."""
        if self._of is not fold.solution:
            self._of = fold.solution
            self._rows = {key: row for key, row in fold.solution.rows().items() if row}
        return self._rows


@dataclass
class Publications:
    """Numbers versions and knows what the bus already has, so that unchanged parts are not sent again.

    Parameters
    ----------
    sent:
        By record key: digest of the part without its version, and the version it was sent with.
    """

    sent: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)

    def records(self, content: Content, version: int) -> tuple[list[tuple[bytes, bytes, int]], bytes]:
        """Records (key, value, version) that the bus lacks, and the manifest to close them with."""
        missing: list[tuple[bytes, bytes, int]] = []
        versions: dict[str, list[int]] = {POPULARITY: [], COMPLEMENTS: []}
        for name, number, part in _parts(content):
            key = part_key(name, number)
            mark = hashlib.blake2b(encode_learned(part), digest_size=16).digest()
            known = self.sent.get(key)
            carries = known[1] if known is not None and known[0] == mark else version
            if carries == version:
                numbered = msgspec.structs.replace(part, version=version)
                missing.append((key, encode_learned(numbered), version))
                self.sent[key] = (mark, version)
            versions[name].append(carries)
        manifest = Manifest(
            version=version,
            journal_time=content.journal_time,
            orders=content.orders,
            trials=0,
            parts={name: len(numbers) for name, numbers in versions.items()},
            versions=versions,
        )
        return missing, encode_learned(manifest)

    def forget(self) -> None:
        """The bus may have lost everything, or nothing is known about what it has."""
        self.sent.clear()


def later(manifest: bytes, journal_time: Millis) -> bytes:
    """The same version, passed by time: only ticks came since."""
    old = msgspec.msgpack.decode(manifest, type=Manifest)
    return encode_learned(msgspec.structs.replace(old, journal_time=journal_time))


def _parts(content: Content) -> Iterator[tuple[str, int, PopularityPart | ComplementsPart]]:
    for number, products in enumerate(content.popularity):
        yield POPULARITY, number, PopularityPart(version=0, part=number, products=products)
    for number, (rows, methods) in enumerate(zip(content.complements, content.methods, strict=True)):
        yield COMPLEMENTS, number, ComplementsPart(version=0, part=number, neighbours=rows, method=methods)


def _popular(fold: Fold) -> list[Popular]:
    counts = fold.counts
    if not counts.orders:
        return []
    weights = np.array(counts.popular)
    numbers = np.flatnonzero(weights > 0.0)
    if len(numbers) > MAX_POPULAR:
        numbers = np.sort(numbers[np.lexsort((numbers, -weights[numbers]))[:MAX_POPULAR]])
    scale = 1.0 / counts.popularity_decay.weight(fold.last_at)
    weight = (weights[numbers] * scale).astype(np.float32).tolist()
    share = np.minimum(weights[numbers] / counts.total, 1.0).astype(np.float32).tolist()
    return [
        Popular(counts.products[number], fresh, part, counts.seen[number])
        for number, fresh, part in zip(numbers.tolist(), weight, share, strict=True)
    ]


def _loose_rows(fold: Fold) -> Iterator[tuple[str, list[Neighbour]]]:
    counts = fold.counts
    numbers = sorted(fold.loose, key=lambda number: (-counts.popular[number], number))[:MAX_LOOSE]
    scale = 1.0 / counts.pairs_decay.weight(fold.last_at) if counts.orders else 1.0
    for number in numbers:
        others = fold.loose[number]
        row = lift_row(counts, number, sorted(others), scale, fold.parameters.complements)
        if row:
            yield counts.products[number], row


def _chunks(products: list[Popular]) -> Iterator[list[Popular]]:
    """Slices of about `PART_BYTES`, at least one."""
    part: list[Popular] = []
    size = 0
    for row in products:
        # An id, two doubles, a number and their marks.
        size += len(row.product_id.encode("utf-8", "surrogatepass")) + 30
        if part and size > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(row)
    yield part


def _spread(neighbours: dict[str, list[Neighbour]]) -> list[dict[str, list[Neighbour]]]:
    """Lists by hash of the product, so that a changed list touches one part; as many parts as needed."""
    sizes = {key: _row_bytes(key, row) for key, row in neighbours.items()}
    count = 1
    while True:
        filled = [0] * count
        for key, size in sizes.items():
            filled[_slot(key, count)] += size
        if max(filled) <= MAX_PART_BYTES * 9 // 10 or count >= 4096:
            break
        count *= 2
    parts: list[dict[str, list[Neighbour]]] = [{} for _ in range(count)]
    for key, row in neighbours.items():
        parts[_slot(key, count)][key] = row
    return parts


def _slot(product_id: str, count: int) -> int:
    return crc32(product_id.encode("utf-8", "surrogatepass")) % count


def _row_bytes(product_id: str, row: Iterable[Neighbour]) -> int:
    own = len(product_id.encode("utf-8", "surrogatepass"))
    return 2 * own + 30 + sum(len(n.product_id.encode("utf-8", "surrogatepass")) + 34 for n in row)
