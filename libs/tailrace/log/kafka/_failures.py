"""Kafka's error codes, sorted by what they mean to us."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

__all__ = [
    "CLIENT_ERRORS",
    "DENIED",
    "FENCED",
    "MISSING",
    "PASSING",
    "STALE",
    "error_of",
    "reason_of",
]

MISSING = frozenset(
    (
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    )
)
"""No such topic or partition; or its metadata is on the way, so look whether it is there."""

DENIED = frozenset(
    (
        *(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED),
        *(KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        *(KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION),
    )
)
"""Our user is not let in, or may not do this."""

FENCED = frozenset(
    (
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
    )
)
"""Another producer took our transactional id."""

STALE = frozenset(
    (
        *(KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH),
        *(KafkaError._NOENT, KafkaError._TIMED_OUT),
    )
)
"""What librdkafka's admin client (2.16) may go on with for ever after a broker's restart: it asks with the epoch of the
leader that it knew, or says that it finds no leaders, or no answer comes. Measured: of six clients that asked for the ends
of forty topics while the broker was restarted, three never had an answer again. A new client has one at once."""

PASSING = frozenset(
    (
        *(KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._ALL_BROKERS_DOWN),
        *(KafkaError._RESOLVE, KafkaError._WAIT_COORD, KafkaError._RETRY, KafkaError._MSG_TIMED_OUT),
        *(KafkaError._WAIT_CACHE, KafkaError._NOENT, KafkaError._INTR, KafkaError._PARTIAL, KafkaError._DESTROY_BROKER),
        *(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REPLICA_NOT_AVAILABLE),
        *(KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION, KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
        *(KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR, KafkaError.NOT_CONTROLLER),
        *(KafkaError.BROKER_NOT_AVAILABLE, KafkaError.CONCURRENT_TRANSACTIONS, KafkaError.UNSTABLE_OFFSET_COMMIT),
        *(KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.UNKNOWN_LEADER_EPOCH),
        *(KafkaError.FENCED_LEADER_EPOCH, KafkaError.KAFKA_STORAGE_ERROR, KafkaError.LISTENER_NOT_FOUND),
        *(KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, KafkaError.THROTTLING_QUOTA_EXCEEDED),
        KafkaError.INVALID_REPLICATION_FACTOR,  # also where the brokers have just started, and none takes topics yet
    )
)
"""What goes away by itself: ask again until the time is up."""


CLIENT_ERRORS = (KafkaException, SystemError)
"""What serving a client's callbacks raises: a fatal error is set as an exception beside them, so that the callback after
it becomes a SystemError caused by it, or by nothing."""


def error_of(exception: BaseException) -> KafkaError | None:
    """The KafkaError inside an exception of confluent-kafka's."""
    if isinstance(exception, SystemError) and exception.__cause__ is not None:
        exception = exception.__cause__
    if isinstance(exception, KafkaException) and exception.args and isinstance(exception.args[0], KafkaError):
        return exception.args[0]
    return None


def reason_of(error: object) -> str:
    """One line for a person."""
    if isinstance(error, CLIENT_ERRORS):
        error = error_of(error) or error
    if isinstance(error, KafkaError):
        return f"{error.str()} ({error.name()})"
    return str(error) or type(error).__name__
