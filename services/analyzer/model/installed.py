"""Folds of the installed base: which machines there are, of which year, with which kits, how often broken.

Under the account where a touchpoint names one, else under the person.
"""

from __future__ import annotations

from msgspec.structs import replace

from libs.common.clock import Millis
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.customer_model import MAX_ASSET_BYTES, MAX_ASSETS, NEVER, Asset, Profile
from libs.common.contracts.vocabulary.goods import MAX_KITS, AssetKit, AssetNamed, Defect
from libs.common.contracts.vocabulary.goods import Asset as AssetTold
from libs.common.scoring.merge import in_use, keep_latest

FEW = 8
"""So many assets may be as large as they can be."""


def registered(profile: Profile, typed: AssetTold, event: Touchpoint) -> Profile:
    """The asset is in the installed base; what is told later holds, what is not told stays."""
    name, at = typed.asset_id or typed.serial or typed.model, event.occurred_at
    if at <= profile.retired.get(name, NEVER):
        return profile
    kits = None if typed.fitted_kits is None else tuple(dict.fromkeys(typed.fitted_kits))
    told = Asset(
        model=typed.model,
        at=at,
        serial=typed.serial,
        year_built=typed.year_built,
        fitted_kits=kits or (),
        product_id=typed.product_id,
        registered_at=at,
    )
    old = profile.assets.get(name)
    if old is None:
        return _with(profile, name, told)
    newer, older = (told, old) if at >= old.at else (old, told)
    return _with(
        profile,
        name,
        replace(
            newer,
            serial=newer.serial or older.serial,
            year_built=newer.year_built if newer.year_built is not None else older.year_built,
            # Trap: kits that were fitted one by one stay where a later word does not speak of kits.
            fitted_kits=old.fitted_kits if kits is None or newer is old else kits,
            product_id=newer.product_id or older.product_id,
            defects=old.defects,
            last_defect_at=old.last_defect_at,
            registered_at=max(at, old.registered_at),
        ),
    )


def retired(profile: Profile, typed: AssetNamed, event: Touchpoint) -> Profile:
    """The asset leaves the installed base, unless it was registered again later."""
    name = typed.asset_id
    last = max(event.occurred_at, profile.retired.get(name, event.occurred_at))
    retired = keep_latest({**profile.retired, name: last}, MAX_ASSETS, lambda at: at)
    return replace(profile, assets=in_use(profile.assets, {name: last}), retired=retired)


def fitted(profile: Profile, typed: AssetKit, event: Touchpoint) -> Profile:
    """The kit is on the asset, where that is known."""
    old = profile.assets.get(typed.asset_id)
    if old is None or typed.kit in old.fitted_kits:
        return profile
    return _with(profile, typed.asset_id, _touched(old, (*old.fitted_kits, typed.kit)[-MAX_KITS:], event))


def removed(profile: Profile, typed: AssetKit, event: Touchpoint) -> Profile:
    """The kit is on the asset no more."""
    old = profile.assets.get(typed.asset_id)
    if old is None or typed.kit not in old.fitted_kits:
        return profile
    left = tuple(kit for kit in old.fitted_kits if kit != typed.kit)
    return _with(profile, typed.asset_id, _touched(old, left, event))


def broken(profile: Profile, typed: Defect, event: Touchpoint) -> Profile:
    """One defect more of the asset, where that is known."""
    old = None if typed.asset_id is None else profile.assets.get(typed.asset_id)
    if old is None or typed.asset_id is None:
        return profile
    at = event.occurred_at
    told = replace(old, defects=old.defects + 1, last_defect_at=max(old.last_defect_at, at))
    return _with(profile, typed.asset_id, told)


def _touched(asset: Asset, kits: tuple[str, ...], event: Touchpoint) -> Asset:
    return replace(asset, fitted_kits=kits, at=max(asset.at, event.occurred_at))


def _with(profile: Profile, name: str, asset: Asset) -> Profile:
    assets = keep_latest({**profile.assets, name: asset}, MAX_ASSETS, _told_at)
    if len(assets) > FEW:
        size = 0
        for kept, (other, one) in enumerate(sorted(assets.items(), key=lambda it: (-it[1].at, it[0]))):
            size += _bytes_of(other, one)
            if size > MAX_ASSET_BYTES:
                assets = keep_latest(assets, kept, _told_at)
                break
    return replace(profile, assets=assets)


def _bytes_of(name: str, asset: Asset) -> int:
    texts = (name, asset.model, asset.serial or "", asset.product_id or "", *asset.fitted_kits)
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _told_at(asset: Asset) -> Millis:
    return asset.at
