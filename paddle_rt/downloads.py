"""Downloads of weights: by https, checked, resumed after a break, and kept only when they are whole."""

import fcntl
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from paddle_rt.errors import UserError
from paddle_rt.files import errors_name, whole_file
from paddle_rt.formats.safetensors import is_safetensors

_ARCHIVES = (".tgz", ".tar.gz", ".tar", ".zip")
_WEIGHTS = (".pdparams", ".safetensors")
_MAX_BYTES = 2**34  # 16 GiB, of a download and of what an archive unpacks to
_MOST_MEMBERS, _LARGEST_RATIO = 1000, 100  # of an archive; weights hardly shrink when they are packed
_ATTEMPTS, _TIMEOUT, _BLOCK = 4, 30, 2**20
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


def local_weights(source: str | os.PathLike) -> pathlib.Path:
    """Return the path of weights, which are downloaded first if `source` is an address.

    Args:
        source: A path, or the https address of a file of weights or of an archive that holds one. An address may end in
            #sha256= and the digest of what it gives. Plain http is accepted from this machine alone.

    Raises:
        UserError: The address is not acceptable or cannot be reached, or what it gives is damaged or no file of
            weights.
        OSError: The disk is full or may not be written.
    """
    address = os.fspath(source)
    if "://" not in address:
        return pathlib.Path(address)
    bare, _, fragment = address.partition("#")
    digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and not digest:
        raise UserError(f"{address}: expected #sha256= and 64 hexadecimal digits behind the address, or nothing")
    _check_address(bare)
    target = _target(bare)
    note = target.with_name(f".{target.name}.address")
    with _locked(target.parent):
        known = note.read_text(encoding="utf-8") if note.is_file() else None
        # A file without a note is one that PaddleSeg has downloaded; it cannot be compared with a digest of an archive.
        if target.is_file() and (known == address or (known is None and not digest)):
            return target
        part = target.with_name(".download.part")  # one name, so that whatever a kill leaves is overwritten
        try:
            with errors_name(target):
                _fetch(bare, part)
                _check(bare, part, digest and digest[1].lower())
                _place(bare, part, target)
                with whole_file(note) as temporary:
                    temporary.write_text(address, encoding="utf-8")
        finally:
            part.unlink(missing_ok=True)
    return target


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    is_here = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not (is_here or (parts.scheme == "https" and parts.hostname)):
        raise UserError(
            f"{address} is no https address; without encryption anybody on the way can replace the file. Use https, or "
            "fetch the file yourself and give its path"
        )


def _target(address: str) -> pathlib.Path:
    """Return where PaddleSeg keeps what an address gives, so that its downloads are used and ours are used by it."""
    path = unquote(urlsplit(address).path)
    *_, folder, name = ["", "", *path.split("/")]
    if name.endswith(_ARCHIVES):
        folder, name = name.split(".")[0], "model.pdparams"
    if not name.endswith(_WEIGHTS):
        raise UserError(f"{address} names no file of weights; expected one of {', '.join((*_WEIGHTS, *_ARCHIVES))}")
    if not re.fullmatch(r"[\w-][\w.+-]*", folder):
        raise UserError(f"{address} has no folder with a plain name before the file's name")
    if not re.fullmatch(r"[\w-][\w.+-]*", name):
        raise UserError(f"{address} has no plain file name")
    home = os.environ.get("SEG_HOME") or os.path.expanduser("~/.paddleseg")
    return pathlib.Path(home, "pretrained_model", folder, name)


@contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Keep the other processes of a launch waiting, which then find the file; the lock ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request: urllib.request.Request, *arguments: Any) -> urllib.request.Request | None:
        _check_address(arguments[-1])
        return super().redirect_request(request, *arguments)


def _fetch(address: str, part: pathlib.Path) -> None:
    """Write what an address gives to a file; where the connection breaks, the rest is asked for."""
    reason = "the connection broke"
    with open(part, "wb") as file, tqdm(desc=address, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        tag = None
        for _ in range(_ATTEMPTS):
            try:
                with _open(address, file.tell(), tag) as response:
                    tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
                    if _copy(address, response, file, bar):
                        return
            except urllib.error.HTTPError as error:
                raise _cannot(address, f"the server answered {error.code} {error.reason}") from error
            except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reason = str(error) or type(error).__name__
            except urllib.error.URLError as error:
                raise _cannot(address, str(error.reason)) from error
    raise _cannot(address, f"{reason}, {_ATTEMPTS} times")


def _cannot(address: str, reason: str) -> UserError:
    return UserError(
        f"cannot download {address} ({reason}); fetch it by hand and set model.pretrained to the file, or to null to "
        "start from random weights"
    )


def _open(address: str, begin: int, tag: str | None) -> Any:
    headers = {"User-Agent": "paddle_rt", "Accept-Encoding": "identity"}
    if begin and tag:  # the server sends the whole file again if it is not the one with this tag
        headers |= {"Range": f"bytes={begin}-", "If-Range": tag}
    request = urllib.request.Request(address, headers=headers)
    return urllib.request.build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT)


def _copy(address: str, response: Any, file: BinaryIO, bar: tqdm) -> bool:
    """Copy a response to the end of the file; return whether all of it has come."""
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise _cannot(address, "it gives a web page, not a file of weights")
    if response.status != 206:  # the server starts anew
        file.seek(0)
        file.truncate()
    length = response.headers.get("Content-Length", "")
    total = file.tell() + int(length) if re.fullmatch("[0-9]{1,15}", length) else None
    bar.total, bar.n = total, file.tell()
    while block := response.read(_BLOCK):
        file.write(block)
        bar.update(len(block))
        if max(total or 0, file.tell()) > _MAX_BYTES:
            raise _cannot(address, f"it is larger than {_MAX_BYTES} bytes")
    return total is None or file.tell() == total


def _check(address: str, part: pathlib.Path, digest: str | None) -> None:
    with open(part, "rb") as file:
        start = file.read(9)
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if digest and found != digest:
        raise _cannot(address, f"its SHA-256 is {found}, expected {digest}")
    if not (_is_weights(start) or tarfile.is_tarfile(part) or zipfile.is_zipfile(part)):
        raise _cannot(address, f"it gives no weights and no archive, but {part.stat().st_size} bytes from {start!r} on")


def _is_weights(start: bytes) -> bool:
    return start[:1] == b"\x80" or is_safetensors(start)  # a pickle of protocol 2 or later


def _place(address: str, part: pathlib.Path, target: pathlib.Path) -> None:
    """Move downloaded weights to their place, or those that an archive holds."""
    try:
        if zipfile.is_zipfile(part):
            with zipfile.ZipFile(part) as archive:
                sizes = {entry.filename: entry.file_size for entry in archive.infolist() if not entry.is_dir()}
                _check_sizes(address, sizes, part)
                name = _chosen(address, sizes, sizes)
                _unpack(address, archive.open(name), target)
        elif tarfile.is_tarfile(part):
            with tarfile.open(part) as archive:
                members: dict[str, tarfile.TarInfo] = {}
                for member in archive:  # the next one is behind the content of this one
                    members[member.name] = member
                    _check_sizes(address, {name: member.size for name, member in members.items()}, part)
                name = _chosen(address, members, [name for name, member in members.items() if member.isreg()])
                _unpack(address, archive.extractfile(members[name]), target)
        else:
            os.replace(part, target)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; those of archives have no number
            raise
        raise _cannot(address, f"the archive is damaged: {error}") from error


def _check_sizes(address: str, sizes: dict[str, int], part: pathlib.Path) -> None:
    """Refuse an archive that unpacks to more than weights do."""
    limit = min(_MAX_BYTES, _LARGEST_RATIO * part.stat().st_size)
    if len(sizes) > _MOST_MEMBERS or sum(sizes.values()) > limit:
        raise _cannot(address, f"the archive holds more than {_MOST_MEMBERS} files or {limit} bytes")


def _chosen(address: str, names: Collection[str], regular: Iterable[str]) -> str:
    """Check the names in an archive, and return that of the file of weights, which alone is unpacked."""
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise _cannot(address, f"the archive holds {name!r}, which leads out of its folder; nothing is unpacked")
    found = [name for name in regular if name.endswith(_WEIGHTS)]
    found = [name for name in found if os.path.basename(name) == "model.pdparams"] or found
    if len(found) != 1:
        few = ascii(list(names)[:5])
        raise _cannot(address, f"the archive holds {len(found)} files of weights, expected one; it begins with {few}")
    return found[0]


def _unpack(address: str, source: Any, target: pathlib.Path) -> None:
    with source, whole_file(target) as temporary:
        with open(temporary, "wb") as file:
            start = source.read(9)
            if not _is_weights(start):
                raise _cannot(address, f"the archive's file of weights begins with {start!r}, as no weights do")
            file.write(start)
            shutil.copyfileobj(source, file, _BLOCK)
