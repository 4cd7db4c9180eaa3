import io
import os
import sys
import threading

import pytest

from paddle_rt.stderr import library_messages, separate_python


def write(text: str) -> None:
    """Write as a library in C does."""
    os.write(2, text.encode())


def test_what_libraries_write_is_collected_and_what_python_writes_is_printed(capfd, monkeypatch):
    with os.fdopen(os.dup(2), "w", buffering=1) as own:
        monkeypatch.setattr(sys, "stderr", own)
        with library_messages() as messages:
            write("a\n\nb")
            thread = threading.Thread(target=print, args=("printed",), kwargs={"file": sys.stderr})
            thread.start()
            thread.join()
        write("behind\n")
    assert messages == ["a", "b"]
    assert capfd.readouterr().err == "printed\nbehind\n"


def test_nothing_is_collected_where_python_writes_to_the_same_descriptor(capfd, monkeypatch):
    with os.fdopen(2, "w", closefd=False) as shared:
        monkeypatch.setattr(sys, "stderr", shared)
        with library_messages() as messages:
            write("a\n")
    assert messages == []
    assert capfd.readouterr().err == "a\n"


def test_the_stream_is_restored_behind_an_error(capfd):
    with pytest.raises(ZeroDivisionError), library_messages() as messages:
        write("a\n")
        _ = 1 / 0
    write("b\n")
    assert messages == ["a"] and capfd.readouterr().err == "b\n"


def test_python_gets_a_descriptor_of_its_own(capfd, monkeypatch):
    with os.fdopen(2, "w", closefd=False) as shared:
        monkeypatch.setattr(sys, "stderr", shared)
        separate_python()
        assert sys.stderr.fileno() != 2
        print("ä\udc80", file=sys.stderr)
        sys.stderr.close()
    assert capfd.readouterr().err == "ä\\udc80\n"
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    separate_python()
    assert sys.stderr is text


def test_a_process_that_is_forked_within_a_block_can_collect(capfd):
    """It is forked by another thread, as the processes that load images are."""
    codes = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            with library_messages() as messages:
                write("in the child")
            os._exit(0 if messages == ["in the child"] else 1)
        codes.append(os.waitpid(child, 0)[1])

    thread = threading.Thread(target=fork)
    with library_messages():
        thread.start()
    thread.join(30)
    assert codes == [0]
