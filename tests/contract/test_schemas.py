"""Golden JSON Schemas and examples of the bus: what is checked in is what runs, and it only grows."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from libs.common.contracts import catalogue, customer_event, customer_model, learned_model, progress
from libs.common.contracts.schemas import breaking_changes, schemas
from libs.common.contracts.touchpoint import CHANNELS, TYPED, VOCABULARY

HERE = Path(__file__).parent
GOLDEN = HERE / "schemas"
EXAMPLES = HERE / "examples"

DECODERS = {
    "customer-events.1": customer_event.CustomerEvent,
    "customer-models.profile.1": customer_model.Profile,
    "customer-models.items.1": customer_model.Items,
    "learned-models.1": learned_model.LearnedModel,
    "catalogue.1": catalogue.CatalogueEntry,
    "progress.1": progress.Progress,
}


@pytest.mark.parametrize("name", sorted(schemas()))
def test_schema_equals_its_golden_file(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    current = json.loads(json.dumps(schemas()[name]))
    assert breaking_changes(golden, current) == [], "a breaking change needs a new schema version"
    assert current == golden, "run `make docs` to record the addition"


def examples() -> list[tuple[str, Any]]:
    return [
        (path.stem, example)
        for path in sorted(EXAMPLES.glob("*.json"))
        for example in json.loads(path.read_text())
    ]


@pytest.mark.parametrize(("name", "example"), examples())
def test_example_is_valid_and_survives_a_round_trip(name: str, example: Any) -> None:
    jsonschema.validate(example, schemas()[name])
    decoded = msgspec.convert(example, DECODERS[name])
    assert msgspec.json.decode(msgspec.json.encode(decoded)) == example


def test_every_kind_of_event_has_an_example() -> None:
    told = {example["kind"] for name, example in examples() if name == "customer-events.1"}
    assert told == {"touchpoint", "identity", "consent", "decision", "outcome", "erasure", "tick", "spool"}


def test_every_typed_touchpoint_has_a_schema() -> None:
    titles = {shape["title"] for shape in schemas()["touchpoint-properties.1"]["oneOf"]}
    assert titles == set(TYPED)


@pytest.mark.parametrize("name", VOCABULARY)
def test_example_of_a_type_has_its_shape(name: str) -> None:
    one = VOCABULARY[name]
    properties = next(s for s in schemas()["touchpoint-properties.1"]["oneOf"] if s["title"] == name)
    jsonschema.validate(one.example, properties)
    assert one.channel in CHANNELS
    known = {field.encode_name for field in msgspec.structs.fields(one.shape)}
    assert set(one.example) <= known, "an example shows what is typed"


def test_a_touchpoint_type_may_not_narrow_or_go() -> None:
    old = schemas()["touchpoint-properties.1"]
    new = copy.deepcopy(old)
    survey = next(one for one in new["oneOf"] if one["title"] == "survey_answered")
    survey["$defs"]["SurveyAnswer"]["required"] = ["rating"]
    new["oneOf"] = [one for one in new["oneOf"] if one["title"] != "bid_placed"]
    assert breaking_changes(old, new) == [
        "/survey_answered/SurveyAnswer/rating: became required",
        "/bid_placed: removed",
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s["properties"].pop("cluster"), "/cluster: removed"),
        (lambda s: s["properties"].update(cluster={"type": "integer"}), "/cluster: changed"),
        (lambda s: s["required"].append("counters"), "/counters: became required"),
    ],
)
def test_breaking_changes_are_found(change: Any, complaint: str) -> None:
    old = schemas()["progress.1"]["$defs"]["Progress"]
    new = copy.deepcopy(old)
    change(new)
    assert [found[: len(complaint)] for found in breaking_changes(old, new)] == [complaint]
    assert (
        breaking_changes(old, {**old, "properties": {**old["properties"], "note": {"type": "string"}}}) == []
    )
