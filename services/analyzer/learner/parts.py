"""What is published: the state of the fold as records of ``learned-models``, in parts under one version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import msgspec
from msgspec.structs import replace

from libs.common.clock import Millis
from libs.common.contracts.learned_model import (
    CAUSED,
    CHOICE,
    COMPLEMENTS,
    INTERCEPTS,
    MAX_PART_BYTES,
    OCCASIONS,
    PAIRS,
    POPULARITY,
    RESPONSE,
    ChoicePart,
    ComplementsPart,
    LearnedModel,
    Manifest,
    OccasionsPart,
    PairsPart,
    Popular,
    PopularityPart,
    encode_learned,
    part_key,
)
from libs.common.scoring.choice import FEATURES
from services.analyzer.learner.cuts import cuts, text_bytes
from services.analyzer.learner.fold import Fold
from services.analyzer.learner.pairs import Lists, row_bytes
from services.analyzer.learner.popular import popular_of
from services.analyzer.learner.response_parts import (
    ResponseContents,
    Responses,
    caused_part,
    intercepts_part,
    response_part,
)

_Numbered = TypeVar("_Numbered", ChoicePart, OccasionsPart)


class Content(NamedTuple):
    """What a version says, before it has a number. Nothing of it changes when the fold goes on."""

    journal_time: Millis
    orders: int
    trials: int
    popularity: list[list[Popular]]
    complements: list[Lists]
    pairs: list[Lists]
    occasions: list[OccasionsPart]
    choice: ChoicePart
    response: Responses


def content_of(fold: Fold, journal_time: Millis, solved: Solved) -> Content:
    """What ``fold`` has learned; a function of its state and nothing else."""
    return Content(
        journal_time=journal_time,
        orders=fold.goods.counts.orders,
        trials=fold.trials,
        popularity=_chunks(popular_of(fold.goods, fold.choice.firsts)),
        complements=solved.parts(fold),
        pairs=fold.goods.pair_log.with_pending(fold.goods.pending_pairs()).parts,
        occasions=fold.choice.occasions.told(),
        choice=_choice(fold),
        response=solved.responses.of(fold.response),
    )


class Solved:
    """The lists of the latest solution in parts, kept because they change only when it does.

    Attributes
    ----------
    responses:
        The same of the response model.
    """

    def __init__(self) -> None:
        self.responses = ResponseContents()
        self._of: object = None
        self._parts: list[Lists] = []

    def parts(self, fold: Fold) -> list[Lists]:
        """Lists of the products that have any; the very same objects while the solution is the same."""
        if self._of is not fold.goods.solution:
            self._of = fold.goods.solution
            self._parts = _spread({key: row for key, row in fold.goods.solution.rows().items() if row})
        return self._parts


class _Sent(NamedTuple):
    """What the bus has under a key: the content (while it lives in here), its digest, its version."""

    content: object
    mark: bytes
    version: int


@dataclass
class Publications:
    """Numbers versions and knows what the bus already has, so that unchanged parts are not sent again.

    Parameters
    ----------
    sent:
        By record key: what was sent last.
    """

    sent: dict[bytes, _Sent] = field(default_factory=dict)

    def records(self, content: Content, version: int) -> tuple[list[tuple[bytes, bytes, int]], bytes]:
        """Records (key, value, version) that the bus lacks, and the manifest to close them with."""
        missing: list[tuple[bytes, bytes, int]] = []
        versions: dict[str, list[int]] = {}
        for name, make, parts in _parts(content):
            carried = versions[name] = []
            for number, part in enumerate(parts):
                key = part_key(name, number)
                sent = self.sent.get(key)
                # Most parts are the very same as last time: those need not even be looked at.
                if sent is None or sent.content is not part:
                    mark = hashlib.blake2b(encode_learned(make(0, number, part)), digest_size=16).digest()
                    if sent is not None and sent.mark == mark:
                        sent = sent._replace(content=part)
                    else:
                        sent = _Sent(part, mark, version)
                        missing.append((key, encode_learned(make(version, number, part)), version))
                    self.sent[key] = sent
                carried.append(sent.version)
        manifest = Manifest(
            version=version,
            journal_time=content.journal_time,
            orders=content.orders,
            trials=content.trials,
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


def _parts(content: Content) -> Iterator[tuple[str, Callable[[int, int, Any], LearnedModel], Sequence[Any]]]:
    yield POPULARITY, _popularity_part, content.popularity
    yield COMPLEMENTS, _complements_part, content.complements
    yield PAIRS, _pairs_part, content.pairs
    yield OCCASIONS, _numbered, content.occasions
    yield CHOICE, _numbered, [content.choice]
    yield RESPONSE, response_part, content.response.heads
    yield INTERCEPTS, intercepts_part, content.response.intercepts
    yield CAUSED, caused_part, content.response.caused


def _popularity_part(version: int, part: int, products: list[Popular]) -> PopularityPart:
    return PopularityPart(version=version, part=part, products=products)


def _complements_part(version: int, part: int, lists: Lists) -> ComplementsPart:
    return ComplementsPart(version=version, part=part, neighbours=lists)


def _pairs_part(version: int, part: int, lists: Lists) -> PairsPart:
    return PairsPart(version=version, part=part, neighbours=lists)


def _numbered(version: int, part: int, made: _Numbered) -> _Numbered:
    return replace(made, version=version, part=part)


def _choice(fold: Fold) -> ChoicePart:
    logit = fold.choice.logit
    return ChoicePart(
        version=0, part=0, names=list(FEATURES), weights=logit.mean.tolist(), samples=logit.samples
    )


def _chunks(products: list[Popular]) -> list[list[Popular]]:
    """Parts of the products, at least one."""
    # An id, four doubles, a number and their marks.
    sizes = (text_bytes(row.product_id) + 46 for row in products)
    return [products[part] for part in cuts(sizes)] or [[]]


def _spread(neighbours: Lists) -> list[Lists]:
    """Lists by hash of the product; as many parts as needed."""
    sizes = {key: row_bytes(key, row) for key, row in neighbours.items()}
    count = 1
    while True:
        filled = [0] * count
        for key, size in sizes.items():
            filled[_slot(key, count)] += size
        if max(filled) <= MAX_PART_BYTES * 9 // 10 or count >= 4096:
            break
        count *= 2
    parts: list[Lists] = [{} for _ in range(count)]
    for key, row in neighbours.items():
        parts[_slot(key, count)][key] = row
    return parts


def _slot(product_id: str, count: int) -> int:
    return crc32(product_id.encode("utf-8", "surrogatepass")) % count
