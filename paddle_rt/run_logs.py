"""The files that a training run logs to: metrics.jsonl and VisualDL's. Reading them does not need Paddle."""

import errno
import json
import logging
import os
import pathlib
import struct
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file, errors_name, temporary_home

_log = logging.getLogger(__name__)
METRICS = "metrics.jsonl"
_HEADER = struct.Struct("<Q")  # of a VisualDL record: its length in bytes
_LARGEST = 2**20  # a length above it is none, and the file no log of a run


def append_whole(file: pathlib.Path, data: bytes) -> None:
    """Append bytes with one write and have them written to the disk, or leave the file as it was.

    Raises:
        OSError: The disk is full or the file cannot be written; the error names the file.
    """
    with open(file, "ab", buffering=0) as opened, errors_name(file):
        size = opened.seek(0, os.SEEK_END)
        try:
            if opened.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(opened.fileno())
        except OSError:
            opened.truncate(size)
            raise


def read_metrics(file: pathlib.Path) -> list[dict[str, Any]]:
    """Read the rows of a metrics.jsonl.

    A damaged row, such as the last one of a run that was killed while writing it, is left out with a warning.
    """
    rows, damaged = [], []
    text = check_plain_file(file, "log of a run").read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        row = _parse_row(line)
        if row is not None:
            rows.append(row)
        elif line.strip():
            damaged.append(str(number))
    if damaged:
        _log.warning(f"{file} is damaged in line {', '.join(damaged[:3])}{' and more' if len(damaged) > 3 else ''}")
    return rows


def _parse_row(line: str) -> dict[str, Any] | None:
    """Return a row of training or of an evaluation, or None where the line is neither."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("iter"), int):
        return None
    is_train = row.get("kind") == "train" and isinstance(row.get("loss"), int | float)
    is_evaluation = row.get("kind") == "eval" and isinstance(row.get("model"), str)
    return row if is_train or is_evaluation else None


def write_records(file: pathlib.Path, records: list) -> None:
    """Append VisualDL's records to a log.

    VisualDL's own writer does so in a thread, which ends on a full disk; the run would then wait for it for ever.
    """
    contents = [record.SerializeToString() for record in records]
    append_whole(file, b"".join(_HEADER.pack(len(content)) + content for content in contents))


def read_scalars(file: pathlib.Path) -> dict[str, dict[int, float]]:
    """Read the scalars of a VisualDL log: a curve, value by iteration, for each tag.

    Raises:
        UserError: The file is damaged. A record at its end that a kill cut off is left out.
    """
    from google.protobuf.message import DecodeError

    with temporary_home():
        from visualdl.proto.record_pb2 import Record

    curves: dict[str, dict[int, float]] = {}
    record, data = Record(), check_plain_file(file, "VisualDL log").read_bytes()
    bounds = _record_bounds(data)
    end = bounds[-1][1] if bounds else 0
    if not _is_part_of_record(data[end:]):
        raise UserError(f"{file} is a damaged VisualDL log (byte {end}); remove it")
    for first, last in bounds:
        try:
            record.ParseFromString(data[first:last])
        except DecodeError as error:
            raise UserError(f"{file} is a damaged VisualDL log (byte {first}); remove it") from error
        for value in record.values:
            if value.WhichOneof("one_value") == "value":
                curves.setdefault(value.tag, {})[value.id] = value.value
    return curves


def drop_partial_record(file: pathlib.Path) -> None:
    """Remove an incomplete record, which a kill has left, from the end of a VisualDL log; VisualDL would refuse it."""
    data = file.read_bytes()
    bounds = _record_bounds(data)
    end = bounds[-1][1] if bounds else 0
    if end < len(data) and _is_part_of_record(data[end:]):
        os.truncate(file, end)


def _is_part_of_record(rest: bytes) -> bool:
    """Tell whether what is behind the complete records of a log can be the beginning of one."""
    return len(rest) < _HEADER.size or _HEADER.unpack_from(rest)[0] < _LARGEST


def _record_bounds(data: bytes) -> list[tuple[int, int]]:
    """Return where the complete records of a VisualDL log begin and end."""
    bounds, last = [], 0
    while last + _HEADER.size <= len(data):
        first = last + _HEADER.size
        last = first + _HEADER.unpack_from(data, last)[0]
        if last > len(data):
            break
        bounds.append((first, last))
    return bounds
