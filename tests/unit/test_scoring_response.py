"""The response model as it is served: what is believed before any trial, and draws that everybody repeats."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from libs.common.contracts.catalogue import KINDS
from libs.common.contracts.learned_model import CausedPart, InterceptsPart, ResponsePart
from libs.common.scoring.features import FEATURES
from libs.common.scoring.response import (
    DRAWN_SPREAD,
    DRAWS,
    HEADS,
    ResponseModel,
    response_of,
    start_deviation,
    start_mean,
)
from libs.common.scoring.trial import (
    LIMIT,
    RESPONSE_FEATURES,
    SHARED_FEATURES,
    SKETCH,
    TRIAL_FEATURES,
    Told,
    category_codes,
    cells_of,
    context_sketch,
    crossed,
    offer_sketch,
    own_features,
    shared_features,
    source_groups,
)

NOTHING = np.zeros(SKETCH)


def own(chance: list[float], **changes: object) -> np.ndarray:
    m = len(chance)
    facts: dict[str, object] = {
        "chance": np.array(chance),
        "kinds": np.zeros(m, dtype=np.int8),
        "groups": np.full(m, -1),
        "price": np.full(m, 3.0),
        "margin": np.full(m, 1.0),
        "tier_step": np.zeros(m),
        "seen": np.zeros(m),
        "offers": np.zeros((m, SKETCH)),
    }
    matrix = np.zeros((m, len(FEATURES)))
    return own_features(matrix, FEATURES, **{**facts, **changes})  # type: ignore[arg-type]


def shared(**changes: object) -> np.ndarray:
    facts: dict[str, object] = {
        "channel": "web",
        "placement": "home",
        "at": 1_700_000_000_000,
        "context": NOTHING,
        "orders": 3.0,
        "on_page": True,
        "basket": 2,
    }
    [features] = shared_features([Told(**{**facts, **changes})])  # type: ignore[arg-type]
    return features


def test_features_are_at_most_96_and_within_the_limit() -> None:
    assert len(TRIAL_FEATURES) == len(set(TRIAL_FEATURES)) <= 96
    wild = own(
        [0.0, 1.0, math.nan],
        price=np.array([0.0, 1e308, math.inf]),
        margin=np.array([-1e308, math.nan, 1e308]),
        seen=np.array([math.inf, -5.0, 0.0]),
        tier_step=np.array([math.nan, 9e99, -9e99]),
    )
    assert wild.shape == (3, len(RESPONSE_FEATURES))
    assert np.isfinite(wild).all()
    assert np.abs(wild).max() <= LIMIT
    odd = shared(orders=math.inf, basket=10**9, at=-5)
    assert odd.shape == (len(SHARED_FEATURES),)
    assert np.isfinite(odd).all()
    assert np.abs(odd).max() <= LIMIT


def test_features_are_what_a_record_of_singles_gives_back() -> None:
    x = own(
        [0.02, 0.3],
        price=np.array([2.99, 17.49]),
        crosses=crossed(np.zeros((2, SKETCH)), context_sketch({"weather": "rain"})),
    )
    assert (x.astype(np.float32).astype(np.float64).round(3) == x).all()


def test_free_fields_of_any_form_are_bounded_and_repeatable() -> None:
    strange = {f"field{n}": value for n, value in enumerate([1e308, -1e308, math.inf, math.nan, 10**400])}
    context = {**strange, "nested": {"a": [1]}, "none": None, "word": "x" * 10_000, "flag": True}
    once = context_sketch(context)
    assert np.isfinite(once).all()
    assert np.abs(once).max() <= 8
    assert (once == context_sketch(dict(reversed(context.items())))).all()
    assert once.any()
    assert not context_sketch({"product_id": "p", "basket": ["a"]}).any()
    many = {f"unknown{n:03}": n for n in range(100)}
    assert (context_sketch(many) == context_sketch(dict(sorted(many.items())[:16]))).all()


def test_context_moves_offers_apart_by_their_attributes() -> None:
    offers = np.stack([offer_sketch({"colour": "red"}), offer_sketch({"colour": "blue"})])
    rain, sun = (
        own([0.1, 0.1], offers=offers, crosses=crossed(offers, context_sketch({"sky": sky})))
        for sky in ("rain", "sun")
    )
    start = RESPONSE_FEATURES.index("cross_0")
    assert (rain[:, :start] == sun[:, :start]).all()
    assert (rain[:, start:] != sun[:, start:]).any(axis=1).all()


def test_kind_and_source_have_their_columns() -> None:
    x = own(
        [0.1] * 3,
        kinds=np.array([KINDS.index("repeat"), KINDS.index("content"), 0], dtype=np.int8),
        groups=source_groups(["basket", "authored", "new"]),
    )
    said = [{name for name, value in zip(RESPONSE_FEATURES, row, strict=True) if value == 1.0} for row in x]
    assert [{name for name in row if name.startswith(("kind_", "source_"))} for row in said] == [
        {"kind_repeat", "source_situation"},
        {"kind_content"},
        {"kind_cross_sell", "source_newcomer"},
    ]


def test_before_any_trial_offers_are_ranked_as_the_choice_model_ranks_them() -> None:
    chance = np.linspace(0.001, 0.6, 50)
    q = ResponseModel().means(own(chance.tolist()), shared(), [f"o{n}" for n in range(50)])
    assert (np.diff(q) > 0).all()
    # About in proportion, where chances are small.
    small = chance < 0.1
    ratio = q[small] / chance[small]
    assert ratio.max() / ratio.min() < 1.6


def parts(mean: float = 0.0, spread: float = 0.1) -> list[ResponsePart]:
    size = len(TRIAL_FEATURES)
    root = np.diag(np.full(size, spread))[np.tril_indices(size)].astype("<f4").tobytes()
    return [
        ResponsePart(
            version=3,
            part=number,
            head=head,
            names=list(TRIAL_FEATURES),
            mean=(start_mean(head) + mean).astype("<f8").tobytes(),
            root=root,
            offer_variance=0.25,
            cell_variance=0.0,
        )
        for number, head in enumerate(HEADS)
    ]


def intercepts(offers: dict[str, float], cells: dict[int, float]) -> InterceptsPart:
    numbers = [[[mean, 0.01]] * 3 for mean in [*offers.values(), *cells.values()]]
    table = np.array(numbers, dtype="<f4").reshape(-1, 3, 2)
    return InterceptsPart(version=3, part=0, offers=list(offers), cells=list(cells), numbers=table.tobytes())


def test_intercepts_of_offers_and_of_their_cells_add_up() -> None:
    model = response_of(3, parts(), [intercepts({"good": 1.0}, {8: 0.5})], [])
    x = own([0.1] * 4)
    odds = model.head_means(x, shared(), ["good", "new", "good", "new"], np.array([8, 8, 16, 16]))
    logits = np.log(odds / (1 - odds))
    assert logits[:, 0] - logits[3, 0] == pytest.approx([1.5, 0.5, 1.0, 0.0], abs=1e-6)
    draws = model.draws(x, shared(), ["good", "new", "good", "new"], np.array([8, 8, 16, 16]))
    spread = np.log(draws).std(axis=0)
    assert spread[3] > 1.3 * spread[2]


def test_rows_stay_with_their_offers_where_one_is_in_two_parts() -> None:
    said = [
        intercepts({"a": 1.0, "b": 2.0}, {8: 0.5, 9: 0.0}),
        intercepts({"b": 3.0}, {8: 1.5}),
        intercepts({"c": 4.0}, {7: 0.25}),
    ]
    model = response_of(3, parts(), said, [])
    odds = model.head_means(own([0.1] * 7), shared(), list("abcnnnn"), np.array([1, 1, 1, 8, 9, 7, 1]))
    logits = np.log(odds / (1 - odds))[:, 0]
    assert logits[:6] - logits[6] == pytest.approx([1, 3, 4, 1.5, 0, 0.25], abs=1e-5)


def test_intercepts_count_only_with_the_heads_they_were_learned_with() -> None:
    x, known = own([0.1]), [intercepts({"good": 1.0}, {8: 0.5})]
    whole = response_of(3, parts(), known, []).head_means(x, shared(), ["good"], np.array([8]))
    other = msgspec.structs.replace(parts()[0], names=["x"])
    for heads in ([*parts()[1:], other], parts()[:2], []):
        model = response_of(3, heads, known, [])
        bare = response_of(3, heads, [], []).head_means(x, shared(), ["good"], np.array([8]))
        assert model.head_means(x, shared(), ["good"], np.array([8])) == pytest.approx(bare)
        assert not (bare == whole).any()


def test_draws_are_those_of_the_version_and_centred_on_the_means() -> None:
    ids = [f"o{n}" for n in range(40)]
    x = own([0.02] * 40)
    model = response_of(3, parts(spread=0.05), [intercepts({"o1": 1.0}, {})], [])
    draws = model.draws(x, shared(), ids)
    assert draws.shape == (DRAWS, 40)
    assert draws.dtype == np.float32
    again = response_of(3, parts(spread=0.05), [intercepts({"o1": 1.0}, {})], [])
    assert (again.draws(x, shared(), ids) == draws).all()
    # An offer's draw is its own, whoever stands beside it.
    assert model.draws(x[:5], shared(), ids[:5])[:, 4] == pytest.approx(draws[:, 4], rel=1e-5)
    later = response_of(4, parts(spread=0.05), [intercepts({"o1": 1.0}, {})], [])
    assert not (later.draws(x, shared(), ids) == draws).any(axis=0).all()
    means = model.means(x, shared(), ids)
    assert np.median(draws, axis=0) == pytest.approx(means, rel=0.25)
    assert ((draws >= 0.0) & (draws <= 1.0)).all()


def test_spread_of_draws_is_that_of_the_posterior() -> None:
    model = response_of(5, parts(spread=0.1), [], [])
    x, ids = own([0.02] * 60), [f"p{n}" for n in range(60)]
    draws = model.draws(x, shared(), ids).astype(np.float64)
    whole = np.concatenate((x[0], shared()))
    alone = start_mean("converted_alone") @ whole
    assert alone < -4
    wide = DRAWN_SPREAD * math.sqrt(0.01 * float(whole @ whole) + 0.25)
    # q is mostly a sum of small chances there, so that its logarithm spreads like the log odds.
    assert np.log(draws).std() == pytest.approx(wide, rel=0.35)


def test_parts_that_speak_of_other_features_leave_the_start() -> None:
    odd = [
        ResponsePart(
            version=3,
            part=0,
            head="engaged",
            names=["x"],
            mean=b"",
            root=b"",
            offer_variance=0.1,
            cell_variance=0,
        )
    ]
    model = response_of(3, odd, [], [])
    x = own([0.1, 0.2])
    assert model.means(x, shared(), ["a", "b"]) == pytest.approx(
        ResponseModel().means(x, shared(), ["a", "b"])
    )
    assert (start_deviation() > 0).all()


def test_caused_by_placement_then_everywhere_then_as_believed_before() -> None:
    shares = {"": {"repeat": 0.2}, "home": {"cross_sell": 0.9, "repeat": 2.0}}
    model = response_of(1, [], [], [CausedPart(version=1, part=0, shares=shares)])
    codes = np.array([KINDS.index(kind) for kind in ("repeat", "cross_sell", "retrofit")], dtype=np.int8)
    assert model.caused(codes, "elsewhere").tolist() == [0.2, 0.5, 0.9]
    assert model.caused(codes, "home").tolist() == [1.0, 0.9, 0.9]
    assert ResponseModel().caused(codes, "home").tolist() == [0.1, 0.5, 0.9]


def test_cells_tell_kind_category_and_tier_apart() -> None:
    codes = category_codes(["a/b/c", "a/b/d", "a/c", "a/b"], np.array([0.1, 0.2, 0.1, 0.9]))
    assert codes[0] == codes[1]
    assert len(set(codes.tolist())) == 3
    cells = cells_of(np.array([0, 1, 0, 0], dtype=np.int8), codes)
    assert len(set(cells.tolist())) == 4
