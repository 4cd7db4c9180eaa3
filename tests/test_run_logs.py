"""metrics.jsonl and VisualDL's logs: what a kill, a full disk or another program has damaged."""

import json
import resource

import pytest

from paddle_rt.errors import UserError
from paddle_rt.run_logs import append_whole, drop_partial_record, read_metrics, read_scalars, write_records
from tests.helpers import run_python

TRAIN = {"kind": "train", "iter": 1, "loss": 0.5}
EVAL = {"kind": "eval", "iter": 1, "model": "model", "mIoU": 0.25}


@pytest.fixture
def records():
    component = pytest.importorskip("visualdl.component.base_component")
    return [component.meta_data(walltime=0), *(component.scalar("Train/loss", 0.5 * i, i, i) for i in range(3))]


@pytest.mark.parametrize(
    "damage",
    ["", '{"kind": "tra', "[1]", '{"kind": "train", "iter": "1", "loss": 1}', '{"kind": "eval", "iter": 1}', "[" * 9999]
    + ['{"kind": "train", "iter": 1, "loss": "1"}', '{"kind": 5, "iter": 1}', "\ufffd\x00", "9" * 5000],
)
def test_damaged_rows_are_left_out_and_named(damage, tmp_path, caplog):
    caplog.set_level("WARNING", logger="paddle_rt")
    file = tmp_path / "metrics.jsonl"
    file.write_bytes("\n".join([json.dumps(TRAIN), damage, json.dumps(EVAL)]).encode() + b"\n")
    assert read_metrics(file) == [TRAIN, EVAL]
    assert (f"{file} is damaged in line 2" in caplog.text) == bool(damage)


def test_rows_that_are_no_text(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(json.dumps(TRAIN).encode() + b"\n\xff\xfe\x80\n")
    assert read_metrics(file) == [TRAIN]


def test_a_full_disk_leaves_no_half_row(tmp_path):
    """The limit of a file's size stands for the disk: the operating system writes a part, and then nothing."""
    file = tmp_path / "metrics.jsonl"
    append_whole(file, b"first\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="metrics.jsonl"):
                append_whole(file, b"second\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_bytes() == b"first\n"


def test_visualdl_reads_what_we_write(records, tmp_path):
    from visualdl import LogReader

    file = tmp_path / "vdlrecords.0000000001.log"
    write_records(file, records[:2])
    write_records(file, records[2:])
    points = LogReader(file_path=str(file)).get_data("scalar", "Train/loss")
    assert {point.id: point.value for point in points} == {0: 0.0, 1: 0.5, 2: 1.0}
    assert read_scalars(file) == {"Train/loss": {0: 0.0, 1: 0.5, 2: 1.0}}


def test_a_record_that_was_cut_off_is_dropped(records, tmp_path):
    file = tmp_path / "vdlrecords.0000000001.log"
    write_records(file, records)
    whole = file.read_bytes()
    write_records(file, records[-1:])
    longer = file.read_bytes()
    for length in range(len(whole), len(longer)):
        file.write_bytes(longer[:length])
        assert read_scalars(file)["Train/loss"] == {0: 0.0, 1: 0.5, 2: 1.0}
        drop_partial_record(file)
        assert file.read_bytes() == whole, length
    for length in range(1, 10):  # within the first record
        file.write_bytes(longer[:length])
        drop_partial_record(file)
        assert file.read_bytes() == b"", length


@pytest.mark.parametrize("content", [b"\xff" * 64, b"text that is no log"])
def test_what_is_no_visualdl_log_is_left_alone(content, tmp_path):
    file = tmp_path / "vdlrecords.1.log"
    file.write_bytes(content)
    drop_partial_record(file)
    assert file.read_bytes() == content
    with pytest.raises(UserError, match=r"damaged VisualDL log \(byte 0\)"):
        read_scalars(file)


def test_an_empty_visualdl_log_holds_nothing(tmp_path):
    (tmp_path / "vdlrecords.1.log").touch()
    assert read_scalars(tmp_path / "vdlrecords.1.log") == {}


def test_a_damaged_record_is_one_line(records, tmp_path):
    file = tmp_path / "vdlrecords.1.log"
    write_records(file, records)
    content = bytearray(file.read_bytes())
    content[8] = 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged VisualDL log"):
        read_scalars(file)


def test_reading_logs_does_not_import_paddle():
    code = "import sys, paddle_rt.run_logs, paddle_rt.cli.plot_runs; sys.exit('paddle' in sys.modules)"
    assert run_python("-c", code).returncode == 0
