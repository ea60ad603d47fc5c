"""Files fetched over the network: only those whose checksum is known beforehand, and never where ``JAXGAN_OFFLINE`` is set."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

TIMEOUT = 30
"""Seconds without a byte after which a download is given up."""


def offline() -> bool:
    """Whether ``JAXGAN_OFFLINE`` forbids the network: set to anything but nothing, 0, no or false."""
    return os.environ.get("JAXGAN_OFFLINE", "").strip().lower() not in ("", "0", "no", "false")


def is_address(text: Any) -> bool:
    """True for what looks like a URL and not like a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(text)) is not None


def download(url: str, sha256: str, size: int, target: str | Path) -> Path:
    """Fetches one file under a temporary name, compares it, and only then gives it its name.

    Args:
      url: https:// or http:// (the checksum holds for both); redirections to other schemes are not followed.
      sha256: of the whole file, 64 hexadecimal digits.
      size: largest number of bytes that is taken; the transfer is broken off beyond it.
      target: where it goes; its folder is made.

    Returns:
      target. After a failure nothing is there, and a file that was there before is untouched.

    Raises:
      ValueError: no checksum, another scheme, more than `size` bytes, or another checksum.
      OSError: ``JAXGAN_OFFLINE`` is set, or the network or the disk failed.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"{url} is not fetched: without its sha256 (64 hexadecimal digits, not {sha256!r}) it could be any file")
    _check_scheme(url)
    if offline():
        raise OSError(f"{url} is not fetched: JAXGAN_OFFLINE is set; unset it, or get the file by hand")
    target = Path(target).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        digest = _stream(url, size, part)
        if digest != sha256:
            raise ValueError(f"{url} gave a file of sha256 {digest}, not {sha256}: it is another file, or the transfer was cut short")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


class _Redirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
        raise ValueError(f"{url} is not fetched: only https:// and http:// are")


def _stream(url: str, size: int, part: Path) -> str:
    """The sha256 of what was written to `part`."""
    digest, taken = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "jaxgan"})
    try:
        with urllib.request.build_opener(_Redirect).open(request, timeout=TIMEOUT) as answer, open(part, "wb") as file:
            while block := answer.read(2**20):
                taken += len(block)
                if taken > size:
                    raise ValueError(f"{url} gives more than the {size:,} bytes of the published file: it is another file; broken off")
                file.write(block)
                digest.update(block)
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"{url} could not be fetched: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException) as error:
        raise OSError(f"{url} could not be fetched: {getattr(error, 'reason', error)}") from error
    return digest.hexdigest()
