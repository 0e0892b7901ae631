"""What a Table is: one topic with its versions, schemas and ids; reading and writing it. Knows no nodes."""

from __future__ import annotations

from tailrace.tables.answers import Answer, answer_message, answers_topic, read_answer
from tailrace.tables.deadletters import DEAD_LETTER_FIELDS, DeadLetterRow, dead_letters_message, dead_letters_topic
from tailrace.tables.fold import (
    NO_SETTINGS,
    PATTERNS_ID,
    REPEAT_MS,
    WEBHOOK_FIELDS,
    Settings,
    TableFold,
    Version,
    VersionView,
    activation,
    version_name,
)
from tailrace.tables.ids import ROWS_PER_MESSAGE_MAX, BadIdError, IdMaker, RowPlace, parse_id, place_number, places_of
from tailrace.tables.lanes import (
    RowKey,
    alike,
    joined_view,
    lane_of,
    lanes_of,
    partition_of_key,
    shown_begun_ms,
    split_lane,
    topic_of,
)
from tailrace.tables.live import Live
from tailrace.tables.merging import MergedReader
from tailrace.tables.messages import (
    Head,
    Messages,
    arrow_message,
    decode_messages,
    file_message,
    message,
    rows_message,
    split_head,
    webhook_message,
)
from tailrace.tables.pieces import BadMessageError, BadRow, FileSource
from tailrace.tables.reading import MessageSource, VersionReader
from tailrace.tables.seen import SeenIds
from tailrace.tables.snapshot import HIDDEN_ID, Snapshot, SnapshotFile, SnapshotFileError, SnapshotReader
from tailrace.tables.staged import StagedFileMissingError, StagedFiles
from tailrace.tables.streamed import StreamBatch, WebhookRow
from tailrace.tables.topics import index_topic

__all__ = [
    "DEAD_LETTER_FIELDS",
    "HIDDEN_ID",
    "NO_SETTINGS",
    "PATTERNS_ID",
    "REPEAT_MS",
    "ROWS_PER_MESSAGE_MAX",
    "WEBHOOK_FIELDS",
    "Answer",
    "BadIdError",
    "BadMessageError",
    "BadRow",
    "DeadLetterRow",
    "FileSource",
    "Head",
    "IdMaker",
    "Live",
    "MergedReader",
    "MessageSource",
    "Messages",
    "RowKey",
    "RowPlace",
    "SeenIds",
    "Settings",
    "Snapshot",
    "SnapshotFile",
    "SnapshotFileError",
    "SnapshotReader",
    "StagedFileMissingError",
    "StagedFiles",
    "StreamBatch",
    "TableFold",
    "Version",
    "VersionReader",
    "VersionView",
    "WebhookRow",
    "activation",
    "alike",
    "answer_message",
    "answers_topic",
    "arrow_message",
    "dead_letters_message",
    "dead_letters_topic",
    "decode_messages",
    "file_message",
    "index_topic",
    "joined_view",
    "lane_of",
    "lanes_of",
    "message",
    "parse_id",
    "partition_of_key",
    "place_number",
    "places_of",
    "read_answer",
    "rows_message",
    "shown_begun_ms",
    "split_head",
    "split_lane",
    "topic_of",
    "version_name",
    "webhook_message",
]
