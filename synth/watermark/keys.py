"""Keys of watermarks: 256 random bits in a file that its owner alone reads. Knows no image."""

import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from synth.errors import DataError, OutputError

KEY_BYTES = 32
_HEX = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}\n?")
_NEW = "make one with `synth watermark new KEYFILE`"


@dataclass(frozen=True)
class Key:
    """A secret of 32 bytes; neither its text nor its id tells it. Errors: DataError for another length.

    >>> key = Key(bytes(32))
    >>> key, len(key.id)
    (Key(), 16)
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise DataError(f"a watermark's key has {KEY_BYTES} bytes, this one {len(self.secret)}; {_NEW}")

    @classmethod
    def new(cls) -> "Key":
        """Return a key drawn from the operating system's randomness."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def read(cls, path: Path) -> "Key":
        """Return the key of a file. Errors: DataError for a file that is missing, no key, or open to others."""
        try:
            with path.open("rb") as file:
                others = os.fstat(file.fileno()).st_mode & 0o077
                content = file.read(4096)
        except FileNotFoundError:
            raise DataError(f"key {path} does not exist; {_NEW}") from None
        except OSError as error:
            raise DataError(f"key {path} cannot be read ({error.strerror}); give a key file") from error
        if os.name == "posix" and others:
            raise DataError(f"key {path} is open to others than its owner; run `chmod 600 {path}`, or make another key")
        if _HEX.fullmatch(content.decode("ascii", errors="replace")) is None:
            raise DataError(f"{path} is no key: it has to hold {2 * KEY_BYTES} hexadecimal digits; {_NEW}")
        return cls(bytes.fromhex(content.decode("ascii")))

    def write(self, path: Path) -> None:
        """Write the key to a new file of mode 0600. Errors: OutputError where something is there already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise OutputError(f"{path} is there already, and a key is never overwritten; give another name") from None
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(f"{self.secret.hex()}\n".encode())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OutputError(f"{path} cannot be written ({error.strerror}); give another name") from error

    @property
    def id(self) -> str:
        """A name of the key that may be printed: the start of a salted SHA-256, from which no key is found."""
        return hashlib.sha256(b"synth watermark key id\0" + self.secret).hexdigest()[:16]

    def stream(self, purpose: str, count: int) -> bytes:
        """Return `count` bytes of SHAKE-256 of the key for one purpose: without the key they look random."""
        return hashlib.shake_256(b"synth watermark 1\0" + purpose.encode() + b"\0" + self.secret).digest(count)
