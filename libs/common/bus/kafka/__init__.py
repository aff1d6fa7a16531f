"""The bus on Kafka, by aiokafka: every await is bounded, and what is broken is thrown away and made anew."""

from libs.common.bus.kafka.bus import KafkaBus, cluster_at

__all__ = ["KafkaBus", "cluster_at"]
