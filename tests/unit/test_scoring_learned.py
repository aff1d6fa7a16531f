"""Putting learned models together: only complete versions are used."""

from __future__ import annotations

from libs.common.contracts.learned_model import (
    COMPLEMENTS,
    MANIFEST_KEY,
    POPULARITY,
    ComplementsPart,
    Manifest,
    Neighbour,
    Popular,
    PopularityPart,
    encode_learned,
    part_key,
)
from libs.common.scoring.learned import LearnedAssembler


def popularity(version: int, part: int, *names: str) -> tuple[bytes, bytes]:
    rows = [Popular(name, float(version), 0.1, version) for name in names]
    made = PopularityPart(version=version, part=part, products=rows)
    return part_key(POPULARITY, part), encode_learned(made)


def complements(version: int, part: int = 0) -> tuple[bytes, bytes]:
    lists = {"a": [Neighbour("b", 0.1 * version, 10.0, 2.0), Neighbour("c", 0.05, 5.0, 1.5)], "c": []}
    made = ComplementsPart(version=version, part=part, neighbours=lists)
    return part_key(COMPLEMENTS, part), encode_learned(made)


def manifest(version: int, at: int, versions: dict[str, list[int]] | None = None) -> tuple[bytes, bytes]:
    parts = {POPULARITY: 2, COMPLEMENTS: 1}
    made = Manifest(
        version=version, journal_time=at, orders=9, trials=0, parts=parts, versions=versions or {}
    )
    return MANIFEST_KEY, encode_learned(made)


def test_version_is_used_when_its_last_part_is_there() -> None:
    assembler = LearnedAssembler()
    records = [manifest(1, 10), popularity(1, 0, "a"), complements(1), popularity(1, 1, "b")]
    assert [assembler.put(*record) for record in records] == [False, False, False, True]
    models = assembler.models
    assert (models.version, models.journal_time, models.orders) == (1, 10, 9)
    assert list(models.popularity.products) == ["a", "b"]
    assert [n.product_id for n in models.complements.of("a")] == ["b", "c"]
    assert models.complements.of("nobody") == []


def test_old_version_serves_while_the_new_one_arrives() -> None:
    assembler = LearnedAssembler()
    for record in (popularity(1, 0, "a"), popularity(1, 1, "b"), complements(1), manifest(1, 10)):
        assembler.put(*record)
    assert not assembler.put(*popularity(2, 0, "z"))
    assert not assembler.put(*popularity(2, 1, "y"))
    assert not assembler.put(*manifest(2, 20))
    assert assembler.models.version == 1
    assert list(assembler.models.popularity.products) == ["a", "b"]
    assert assembler.put(*complements(2))
    assert assembler.models.version == 2
    assert list(assembler.models.popularity.products) == ["y", "z"]


def test_parts_of_an_earlier_version_may_belong_to_a_later_one() -> None:
    assembler = LearnedAssembler()
    for record in (popularity(1, 0, "a"), popularity(1, 1, "b"), complements(1), manifest(1, 10)):
        assembler.put(*record)
    before = assembler.models
    assembler.put(*popularity(2, 0, "a"))
    assert assembler.put(*manifest(2, 20, {POPULARITY: [2, 1], COMPLEMENTS: [1]}))
    assert assembler.models.version == 2
    assert assembler.models.complements is before.complements
    assert assembler.models.popularity is not before.popularity


def test_later_time_of_the_same_version_keeps_everything_else() -> None:
    assembler = LearnedAssembler()
    for record in (popularity(1, 0, "a"), popularity(1, 1, "b"), complements(1), manifest(1, 10)):
        assembler.put(*record)
    before = assembler.models
    assert assembler.put(*manifest(1, 11))
    assert assembler.models.journal_time == 11
    assert assembler.models.popularity is before.popularity


def test_older_records_are_ignored() -> None:
    assembler = LearnedAssembler()
    for record in (popularity(2, 0, "a"), popularity(2, 1, "b"), complements(2), manifest(2, 20)):
        assembler.put(*record)
    for record in (popularity(1, 0, "old"), complements(1), manifest(1, 99)):
        assert not assembler.put(*record)
    assert assembler.models.version == 2
