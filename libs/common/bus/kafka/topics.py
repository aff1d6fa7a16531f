"""Topics as they are on a cluster, and changes of their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import for_code
from aiokafka.protocol.admin import AlterConfigsRequest, DescribeConfigsRequest

from libs.common.bus.kafka.client import BoundClient
from libs.common.bus.ports import EMBEDDED, TopicState
from libs.common.errors import Transient

_TOPIC = 2
_SET_FOR_THE_TOPIC = 1


async def describe(client: BoundClient, names: Sequence[str]) -> dict[str, TopicState]:
    """See `ports.Bus.describe`; the caller bounds it."""
    metadata = ClusterMetadata(metadata_max_age_ms=0)
    if not await client._metadata_update(metadata, names):
        client.check()
        raise Transient("no broker tells of its topics")
    found = [name for name in names if metadata.partitions_for_topic(name)]
    configs = await _configs(client, found, own=False)
    states = {}
    for name in found:
        partitions = metadata._partitions[name]
        replicas = min(len(partition.replicas) for partition in partitions.values())
        states[name] = TopicState(len(partitions), replicas, configs.get(name, {}))
    return states


async def configure(client: BoundClient, name: str, config: Mapping[str, str]) -> None:
    """See `ports.Bus.configure`; the caller bounds it."""
    # Trap: this request replaces all that was ever set for the topic, so what is set is said again.
    settings = {**(await _configs(client, [name], own=True)).get(name, {}), **config}
    request = AlterConfigsRequest([(_TOPIC, name, list(settings.items()))])
    answer = await client.send(client.get_random_node(), request)
    for code, message, *_ in answer.resources:
        if code != 0:
            raise Transient(f"settings of {name} are not changed: {message or for_code(code).__name__}")


async def _configs(client: BoundClient, names: Sequence[str], own: bool) -> dict[str, dict[str, str]]:
    """Settings by topic; ``own`` only those set for the topic itself."""
    if not names or client.cluster_id.startswith(EMBEDDED):
        return {}
    request = DescribeConfigsRequest([(_TOPIC, name, None) for name in names], False)
    answer = await client.send(client.get_random_node(), request)
    return {
        resource[3]: {
            entry[0]: entry[1] for entry in resource[4] if not own or entry[3] == _SET_FOR_THE_TOPIC
        }
        for resource in answer.resources
        if resource[0] == 0
    }
