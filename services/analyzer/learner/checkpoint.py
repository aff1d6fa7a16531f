"""Checkpoints: the whole state of the fold as canonical bytes, msgpack and arrays, never pickles."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from services.analyzer.learner import goods_state, responses_state
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.choice import ChoiceState
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.goods_state import GoodsState
from services.analyzer.learner.responses_state import ResponseState

FORMAT = 11


class _Checkpoint(Struct, frozen=True, kw_only=True):
    format: int
    parameters: Parameters
    place: tuple[int, int, int, int]
    goods: GoodsState
    choice: ChoiceState
    response: ResponseState
    trials: int


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(_Checkpoint)


def save(fold: Fold) -> bytes:
    """The state of ``fold``: equal states give equal bytes."""
    checkpoint = _Checkpoint(
        format=FORMAT,
        parameters=fold.parameters,
        place=(*fold.place,),
        goods=goods_state.state_of(fold.goods),
        choice=fold.choice.state(),
        response=responses_state.state_of(fold.response),
        trials=fold.trials,
    )
    return _encoder.encode(checkpoint)


def restore(body: bytes | None, parameters: Parameters, catalogue: Catalogue | None = None) -> Fold | None:
    """The fold as it was saved; None where there is nothing, or what was saved has other parameters.

    The products it knew are remembered by ``catalogue``.
    """
    saved = _read(body)
    if saved is None or saved.parameters != parameters:
        return None
    fold = Fold(parameters, catalogue)
    fold.place = Place(*saved.place)
    goods_state.restore(fold.goods, saved.goods)
    fold.choice.restore(saved.choice)
    responses_state.restore(fold.response, saved.response)
    fold.trials = saved.trials
    return fold


def parameters_of(body: bytes | None) -> Parameters | None:
    """What the fold was saved with; None where there is nothing, or what other code has saved."""
    saved = _read(body)
    if saved is None:
        return None
    ours, theirs = Parameters(), saved.parameters
    return theirs if (theirs.version, theirs.features) == (ours.version, ours.features) else None


def _read(body: bytes | None) -> _Checkpoint | None:
    if body is None:
        return None
    try:
        saved = _decoder.decode(body)
    except msgspec.DecodeError:
        return None
    return saved if saved.format == FORMAT else None


def digest(fold: Fold) -> str:
    """SHA-256 of the state: equal for equal lessons in canonical order."""
    return hashlib.sha256(save(fold)).hexdigest()
