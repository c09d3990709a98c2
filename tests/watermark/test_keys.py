"""Key files: made once, readable by their owner alone, refused in one line where they are none."""

import os
import stat
from pathlib import Path

import pytest

from synth.errors import ConfigError, DataError, OutputError
from synth.watermark import Key, decoy_keys


def test_a_key_file_is_its_owners_and_is_never_overwritten(tmp_path: Path) -> None:
    key, path = Key.new(), tmp_path / "deep" / "key"
    before = os.umask(0)
    try:
        key.write(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Key.read(path) == key
    with pytest.raises(OutputError, match="never overwritten"):
        Key.new().write(path)
    assert Key.read(path) == key


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no key"),
        (b"ab" * 31, "no key"),
        (b"ab" * 33, "no key"),
        (os.urandom(32), "no key"),
        (b"zz" * 32, "no key"),
        (b"ab" * 32 + b"\n\n", "no key"),
    ],
)
def test_what_is_no_key_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        Key.read(path)


def test_a_missing_key_a_folder_and_one_that_others_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; make one"):
        Key.read(tmp_path / "key")
    with pytest.raises(DataError, match="cannot be read"):
        Key.read(tmp_path)
    Key.new().write(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(DataError, match="chmod 600"):
        Key.read(tmp_path / "key")
    with pytest.raises(DataError, match="32 bytes"):
        Key(b"short")


def test_neither_text_nor_id_tells_the_secret() -> None:
    key = Key(bytes(range(32)))
    assert key.secret.hex() not in repr(key) and key.id not in key.secret.hex()
    assert key.id == Key(bytes(range(32))).id != Key(bytes(32)).id


def test_decoys_are_the_keys_own_and_differ() -> None:
    one, other = Key(bytes(32)), Key(bytes(31) + b"\1")
    assert decoy_keys(one, 50) == decoy_keys(one, 50)
    assert len({key.secret for key in (one, other, *decoy_keys(one, 50), *decoy_keys(other, 50))}) == 102
    for count in (0, 18, 100_000):
        with pytest.raises(ConfigError, match="give 19 to"):
            decoy_keys(one, count)
