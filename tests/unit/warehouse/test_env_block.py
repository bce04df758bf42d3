"""Our lines in `.env`: in and out again, and not a byte of the user's is touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from flows.settings import Connection
from flows.warehouse.env_block import (
    BEGIN,
    END,
    remove_block,
    render_block,
    without_block,
    write_block,
)

WHERE = Connection(
    host="/a path/run", port=5433, user="warehouse", password=SecretStr("x-_9"), database="w"
)
LINES = st.lists(
    st.sampled_from(
        [
            b"A=1",
            b"",
            b"# note",
            b"WAREHOUSE_PGHOST=mine",
            b"export B='x y'",
            b"\xff\x00",
            b" C = 2",
        ]
    )
)
ENDINGS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(LINES, ENDINGS, st.booleans())
def test_in_and_out_again_leaves_every_byte(lines, ending, ends_with_newline):
    content = ending.join(lines) + (ending if ends_with_newline else b"")
    once = render_block(WHERE) + without_block(content)
    assert once.endswith(content)
    assert without_block(once) == content
    assert render_block(WHERE) + without_block(once) == once


@given(LINES)
def test_a_block_without_its_end_takes_only_our_lines(lines):
    rest = b"USER=1\n" + b"".join(line + b"\n" for line in lines)
    torn = render_block(WHERE).replace(END + b"\n", b"") + rest
    assert without_block(torn) == rest


def test_dotenv_and_a_shell_read_the_same(tmp_path):
    path = tmp_path / ".env"
    write_block(path, WHERE)
    expected = {f"WAREHOUSE_{name}": value for name, value in WHERE.environment().items()}
    assert dotenv_values(path) == expected
    shell = subprocess.run(
        ["/bin/sh", "-c", 'set -a; . "$0"; env', path], capture_output=True, text=True, check=True
    )
    seen = dict(line.split("=", 1) for line in shell.stdout.splitlines() if "=" in line)
    assert {name: seen[name] for name in expected} == expected


def test_file_becomes_private_and_stays_where_it_is(tmp_path):
    real = tmp_path / "elsewhere" / "env"
    real.parent.mkdir()
    real.write_bytes(b"A=1\n")
    real.chmod(0o644)
    link = tmp_path / ".env"
    link.symlink_to(real)
    write_block(link, WHERE)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert BEGIN in real.read_bytes()
    remove_block(link)
    assert real.read_bytes() == b"A=1\n"
    assert [path.name for path in real.parent.iterdir()] == ["env"]


def test_a_file_without_our_block_is_not_written(tmp_path):
    path = tmp_path / ".env"
    path.write_bytes(b"A=1")
    before = path.stat()
    remove_block(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("present", [True, False])
def test_a_failed_write_leaves_the_old_file(tmp_path, present, monkeypatch):
    path = tmp_path / ".env"
    if present:
        path.write_bytes(b"A=1\n")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_block(path, WHERE)
    assert [entry.name for entry in tmp_path.iterdir()] == ([".env"] if present else [])
    assert not present or path.read_bytes() == b"A=1\n"
