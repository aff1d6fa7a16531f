"""Putting learned models together: only complete versions are used."""

from __future__ import annotations

from libs.common.contracts.learned_model import (
    CHOICE,
    COMPLEMENTS,
    MANIFEST_KEY,
    PAIRS,
    POPULARITY,
    ChoicePart,
    ComplementsPart,
    Manifest,
    Neighbour,
    PairsPart,
    Popular,
    PopularityPart,
    encode_learned,
    part_key,
)
from libs.common.scoring.choice import FEATURES, START
from libs.common.scoring.learned import LearnedAssembler, LearnedModels


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


def paired(manifest_version: int, *parts: PairsPart) -> list[tuple[bytes, bytes]]:
    """A version with the complements of version 1 and these pairs."""
    versions = {COMPLEMENTS: [1], PAIRS: [part.version for part in parts]}
    made = Manifest(
        version=manifest_version,
        journal_time=manifest_version,
        orders=9,
        trials=0,
        parts={COMPLEMENTS: 1, PAIRS: len(parts)},
        versions=versions,
    )
    records = [(part_key(PAIRS, part.part), encode_learned(part)) for part in parts]
    return [*records, (MANIFEST_KEY, encode_learned(made))]


def test_pairs_stand_beside_solved_lists_and_the_latest_part_counts() -> None:
    assembler = LearnedAssembler()
    old = [Neighbour("x", 0.3, 30.0, 3.0), Neighbour("a", 0.2, 20.0, 2.0), Neighbour("y", 0.1, 10.0, 1.0)]
    new = [Neighbour("b", 0.4, 40.0, 4.0)]
    first = PairsPart(version=1, part=0, neighbours={"new": old, "z": old, "gone": new})
    second = PairsPart(version=1, part=1, neighbours={"new": new, "gone": []})
    for record in (complements(1), *paired(1, first, second)):
        assembler.put(*record)
    held = assembler.models.complements
    assert [n.product_id for n in held.of("a")] == ["b", "c"]
    assert (held.of("z"), held.of("new"), held.of("gone"), held.of("x")) == (old, new, [], [])
    assert sorted(held.products) == ["a", "b", "c", "gone", "new", "x", "y", "z"]
    assert held.neighbours.shape == (8, 3)
    assert all(held.products[row] == product_id for product_id, row in held.index.items())


def test_pairs_of_a_product_that_also_has_a_solved_list_count_alone() -> None:
    assembler = LearnedAssembler()
    only = [Neighbour("c", 0.5, 50.0, 5.0)]
    for record in (complements(1), *paired(1, PairsPart(version=1, part=0, neighbours={"a": only}))):
        assembler.put(*record)
    assert assembler.models.complements.of("a") == only


def test_new_pairs_leave_the_solved_lists_as_they_are() -> None:
    assembler = LearnedAssembler()
    pairs = PairsPart(version=1, part=0, neighbours={"new": [Neighbour("b", 0.5, 50.0, 5.0)]})
    for record in (complements(1), *paired(1, pairs)):
        assembler.put(*record)
    before = assembler.models.complements
    later = PairsPart(version=2, part=0, neighbours={"newer": [Neighbour("new", 0.25, 25.0, 2.0)]})
    for record in paired(2, later):
        assembler.put(*record)
    after = assembler.models.complements
    assert assembler.models.version == 2
    assert after.of("a") == before.of("a") != []
    assert (after.of("new"), after.of("newer")) == ([], [Neighbour("new", 0.25, 25.0, 2.0)])
    # The version before stays what it was, for who still uses it.
    assert before.of("new") == [Neighbour("b", 0.5, 50.0, 5.0)]
    for record in paired(3, later):
        assembler.put(*record)
    assert assembler.models.version == 3
    assert assembler.models.complements is after


def test_choice_is_the_prior_until_it_was_learned_and_then_what_was_published() -> None:
    assert LearnedModels().choice is START
    assembler = LearnedAssembler()
    for record in (popularity(1, 0, "a"), popularity(1, 1, "b"), complements(1), manifest(1, 10)):
        assembler.put(*record)
    assert assembler.models.choice is START
    names = ["habit", "of a later release", "popularity", "recency"]
    part = ChoicePart(version=2, part=0, names=names, weights=[1.5, 9.0, float("nan"), -0.5], samples=7)
    parts = {POPULARITY: 2, COMPLEMENTS: 1, CHOICE: 1}
    versions = {POPULARITY: [1, 1], COMPLEMENTS: [1], CHOICE: [2]}
    closing = Manifest(version=2, journal_time=20, orders=9, trials=0, parts=parts, versions=versions)
    assert not assembler.put(MANIFEST_KEY, encode_learned(closing))
    assert assembler.put(part_key(CHOICE, 0), encode_learned(part))
    learned = dict(zip(FEATURES, assembler.models.choice.weights.tolist(), strict=True))
    assert (learned["habit"], learned["recency"]) == (1.5, -0.5)
    # Neither what is not finite nor what is not named weighs anything.
    assert set(learned.values()) == {1.5, -0.5, 0.0}
