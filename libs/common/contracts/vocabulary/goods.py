"""The installed base: machines and devices at customers, the kits fitted to them, their defects."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from libs.common.contracts.vocabulary.values import Grade, Name, TouchpointType, Word, Year

MAX_KITS = 16
"""Kits fitted to one asset."""


class Asset(Struct, frozen=True):
    """A machine: known by ``asset_id``, else by ``serial``, else as the customer's only one of its ``model``.

    ``year_built`` and ``fitted_kits`` decide which retrofit kits suit it.
    """

    model: Name
    asset_id: Name | None = None
    serial: Name | None = None
    year_built: Year | None = None
    fitted_kits: Annotated[list[Word], Meta(max_length=MAX_KITS)] | None = None
    product_id: Name | None = None


class AssetKit(Struct, frozen=True):
    """A kit and the asset it was fitted to or taken from."""

    asset_id: Name
    kit: Word


class AssetNamed(Struct, frozen=True):
    """An asset, by its id."""

    asset_id: Name
    reason: str | None = None


class Defect(Struct, frozen=True):
    """Something is broken; ``defect`` is what, in words of your own, ``severity`` from 0 to 10."""

    defect: str | None = None
    asset_id: Name | None = None
    product_id: Name | None = None
    case_id: Name | None = None
    severity: Grade | None = None


_ASSET = {
    "asset_id": "m-1",
    "model": "X200",
    "serial": "X200-00417",
    "year_built": 2009,
    "fitted_kits": ["guard-2"],
}

TYPES = (
    TouchpointType(
        "asset_registered", "field_service", Asset, "A machine is known, or known better.", _ASSET
    ),
    TouchpointType(
        "asset_retired",
        "field_service",
        AssetNamed,
        "It was scrapped or sold.",
        {"asset_id": "m-1", "reason": "sold"},
    ),
    TouchpointType(
        "kit_fitted",
        "field_service",
        AssetKit,
        "A kit was fitted to it.",
        {"asset_id": "m-1", "kit": "drive-3"},
    ),
    TouchpointType(
        "kit_removed",
        "field_service",
        AssetKit,
        "A kit was taken off again.",
        {"asset_id": "m-1", "kit": "guard-2"},
    ),
    TouchpointType(
        "defect_reported",
        "service",
        Defect,
        "Something is broken.",
        {"asset_id": "m-1", "defect": "bearing", "severity": 4},
    ),
)

INSTALLED = frozenset(one.name for one in TYPES)
"""Types that tell of the installed base, which belongs to the account where one is named."""
