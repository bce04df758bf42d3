"""Sealed credentials open in their own place only, and nothing that is said gives one away."""

from __future__ import annotations

import base64
import json
import threading
import traceback
from uuid import UUID, uuid4

import pytest
import typer
from cryptography.fernet import Fernet
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner

from flows.commands import secrets as commands
from flows.errors import UsageError, WarehouseError
from flows.settings import get_settings
from flows.warehouse.embedded import delete_server
from flows.warehouse.secrets import (
    SEALED_COLUMNS,
    DoesNotOpen,
    MasterKey,
    RowRef,
    SecretBox,
    add_key,
    keys_file,
    load_keys,
)
from tests.conftest import use_home

PLACES = [(table, column) for table, columns in SEALED_COLUMNS.items() for column in columns]
ANY_TEXT = st.text(st.characters())
KEY_BYTES = st.binary(min_size=32, max_size=32)
WHERE = st.builds(
    lambda place, row, user: RowRef(*place, row, user),
    st.sampled_from(PLACES),
    st.uuids(),
    st.uuids(),
)


def new_key(material: bytes | None = None) -> MasterKey:
    text = base64.urlsafe_b64encode(material) if material else Fernet.generate_key()
    return MasterKey.parse(text.decode(), "a key")


def some_place() -> RowRef:
    return RowRef("app.oauth_tokens", "access_token", uuid4(), uuid4())


@pytest.fixture
def key_home(tmp_path, monkeypatch):
    """A warehouse folder without keys."""
    home = tmp_path / ".warehouse"
    home.mkdir()
    monkeypatch.delenv("WAREHOUSE_SECRET_KEYS", raising=False)
    monkeypatch.delenv("WAREHOUSE_SECRET_KEYS_FILE", raising=False)
    use_home(monkeypatch, home)
    return home


@given(value=ANY_TEXT, where=WHERE, material=KEY_BYTES)
def test_what_is_sealed_opens_in_its_place(value, where, material):
    box = SecretBox([new_key(material)])
    sealed = box.seal(SecretStr(value), where=where)
    assert sealed.ciphertext.startswith("gAAAA")
    assert len(sealed.key_id) == 12
    assert box.open(*sealed, where).get_secret_value() == value
    assert box.seal(value, where=where).ciphertext != sealed.ciphertext


@given(value=ANY_TEXT, where=WHERE, other=WHERE, parts=st.sets(st.integers(0, 2), min_size=1))
def test_it_opens_nowhere_else(value, where, other, parts):
    """Another table and column, another row, another user, or several of them at once."""
    table, column = (other.table, other.column) if 0 in parts else (where.table, where.column)
    row_id = other.row_id if 1 in parts else where.row_id
    user_id = other.user_id if 2 in parts else where.user_id
    elsewhere = RowRef(table, column, row_id, user_id)
    assume(elsewhere != where)
    box = SecretBox([new_key()])
    sealed = box.seal(value, where=where)
    with pytest.raises(DoesNotOpen, match=f"{column} of row {row_id} in {table}"):
        box.open(*sealed, elsewhere)
    with pytest.raises(DoesNotOpen):
        SecretBox([new_key(), *box._keys.values()]).reseal(*sealed, elsewhere)


@given(value=ANY_TEXT, where=WHERE, keys_before=st.integers(1, 3))
def test_after_a_rotation_the_old_keys_may_go(value, where, keys_before):
    old, new = [new_key() for _ in range(keys_before)], new_key()
    sealed = SecretBox(old).seal(value, where=where)
    both = SecretBox([new, *old])
    assert both.open(*sealed, where).get_secret_value() == value
    resealed = both.reseal(*sealed, where)
    assert resealed.key_id == new.key_id
    assert SecretBox([new]).open(*resealed, where).get_secret_value() == value
    assert both.reseal(*resealed, where) == resealed


@given(value=ANY_TEXT, data=st.data())
def test_a_changed_token_does_not_open(value, data):
    where, box = some_place(), SecretBox([new_key()])
    text, key_id = box.seal(value, where=where)
    position = data.draw(st.integers(0, len(text.rstrip("=")) - 2))
    letter = data.draw(st.sampled_from("Aa0_é\0").filter(lambda letter: letter != text[position]))
    with pytest.raises(DoesNotOpen, match="was changed"):
        box.open(text[:position] + letter + text[position + 1 :], key_id, where)


@pytest.mark.parametrize("text", ["", "gAAAA", "gAAAA" + "é" * 60, "plain", "gAAAA====\n"])
def test_what_is_no_token_does_not_open(text):
    box = SecretBox([new_key()])
    with pytest.raises(DoesNotOpen, match="was changed"):
        box.open(text, box.current_key_id, some_place())


def test_a_key_that_is_not_here_is_named():
    old, new = new_key(), new_key()
    where = some_place()
    sealed = SecretBox([old]).seal("x", where=where)
    for attempt in (SecretBox([new]).open, SecretBox([new]).reseal):
        with pytest.raises(DoesNotOpen) as caught:
            attempt(*sealed, where)
        assert f"under key {old.key_id}" in caught.value.why
        assert new.key_id in caught.value.why


def test_a_value_under_an_old_key_is_found_although_its_row_names_the_current_one():
    """A writer may renew the access token alone, and with it the key id of both columns."""
    old, new = new_key(), new_key()
    where = some_place()
    sealed = SecretBox([old]).seal("x", where=where)
    resealed = SecretBox([new, old]).reseal(sealed.ciphertext, new.key_id, where)
    assert SecretBox([new]).open(*resealed, where).get_secret_value() == "x"


@pytest.mark.parametrize(
    "arguments",
    [
        ("app.users", "password_hash", uuid4(), uuid4()),
        ("app.oauth_tokens", "credentials_encrypted", uuid4(), uuid4()),
        ("app.oauth_tokens", "access_token", str(uuid4()), uuid4()),
        ("app.oauth_tokens", "access_token", uuid4(), str(uuid4())),
    ],
)
def test_a_place_is_a_declared_column_and_two_uuids(arguments):
    with pytest.raises((ValueError, TypeError)):
        RowRef(*arguments)


def test_a_token_of_2026_opens_for_ever():
    """The derivation is part of what is stored; this token was made by hand after RFC 5869."""
    key = new_key(bytes(range(32)))
    token = (
        "gAAAAABrBXi8aEzrSIw4ZDbSgTHc03oyxNTZCCJiwJ3i0CMyFgoCtsJpP_Ja"
        "uNSeLp5IjavacaFB4KwruDBpUfKmn69ojVfnPg=="
    )
    where = RowRef("app.oauth_tokens", "access_token", UUID(int=1), UUID(int=2))
    assert key.key_id == "630dcd2966c4"
    assert SecretBox([key]).open(token, key.key_id, where).get_secret_value() == "of 2026"


def test_no_repr_error_or_traceback_gives_a_secret_away():
    canary, material = f"CANARY-{uuid4()}", Fernet.generate_key().decode()
    where = some_place()
    box = SecretBox([MasterKey.parse(material, "a key")])
    sealed = box.seal(SecretStr(canary), where=where)
    said = [repr(box), repr(box._current), repr(sealed), repr(box.open(*sealed, where))]
    elsewhere = some_place()
    for attempt in (
        lambda: box.open(*sealed, elsewhere),
        lambda: box.open(sealed.ciphertext, "0" * 12, where),
        lambda: MasterKey.parse(f" {material}", "line 1 of a file"),
    ):
        try:
            attempt()
        except WarehouseError as error:
            said += ["".join(traceback.format_exception(error)), str(error.as_dict())]
    assert len(said) == 10
    told = "\n".join(said)
    assert canary not in told
    assert material not in told
    assert repr(box._current.material) not in told


def test_the_key_file_is_private_and_its_first_key_is_the_current_one(key_home):
    first = add_key(get_settings())
    second = add_key(get_settings())
    path = key_home / "secret.keys"
    assert keys_file(get_settings()) == path
    assert path.stat().st_mode & 0o777 == 0o600
    assert second[1:] == first
    assert load_keys(get_settings()) == second
    box = SecretBox.from_settings()
    assert box.key_ids == tuple(key.key_id for key in second)
    assert box.current_key_id == second[0].key_id
    assert list(key_home.iterdir()) == [path]


def test_notes_and_empty_lines_stay_in_the_key_file(key_home):
    path = key_home / "secret.keys"
    old = Fernet.generate_key().decode()
    path.write_text(f"# of 2025\n\n{old}\n{old}\n")
    path.chmod(0o600)
    keys = add_key(get_settings())
    assert path.read_text().endswith(f"\n# of 2025\n\n{old}\n{old}\n")
    assert [key.key_id for key in load_keys(get_settings())] == [
        keys[0].key_id,
        MasterKey.parse(old, "").key_id,
    ]


def test_new_keys_at_the_same_time_all_stay(key_home):
    settings = get_settings()
    threads = [threading.Thread(target=add_key, args=(settings,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_keys(settings)) == 8


def test_the_setting_goes_before_the_file(key_home, monkeypatch):
    add_key(get_settings())
    texts = [Fernet.generate_key().decode() for _ in range(2)]
    monkeypatch.setenv("WAREHOUSE_SECRET_KEYS", ", ".join(texts))
    get_settings.cache_clear()
    ids = tuple(MasterKey.parse(text, "").key_id for text in texts)
    assert SecretBox.from_settings().key_ids == ids
    with pytest.raises(UsageError, match="WAREHOUSE_SECRET_KEYS is set"):
        add_key(get_settings())
    assert not any(text in repr(get_settings()) for text in texts)


def test_another_file_may_be_named(key_home, tmp_path, monkeypatch):
    monkeypatch.setenv("WAREHOUSE_SECRET_KEYS_FILE", str(tmp_path / "deep" / "keys"))
    get_settings.cache_clear()
    add_key(get_settings())
    assert (tmp_path / "deep" / "keys").exists()
    assert not (key_home / "secret.keys").exists()


def test_the_keys_outlive_the_embedded_database(key_home):
    """A backup from before needs them."""
    keys = add_key(get_settings())
    delete_server(get_settings())
    assert load_keys(get_settings()) == keys


def test_without_a_key_the_error_says_what_to_do(key_home):
    with pytest.raises(WarehouseError) as caught:
        SecretBox.from_settings()
    assert "secret.keys does not exist" in caught.value.why
    assert "put your copy of the file back" in caught.value.next_step
    assert "warehouse secrets new-key" in caught.value.next_step


@pytest.mark.parametrize(
    "content", ["CANARY", "{key}CANARY", "{key},{key}", "{key} CANARY", "\xff\xfe"]
)
@pytest.mark.parametrize("use", [SecretBox.from_settings, lambda: add_key(get_settings())])
def test_a_broken_key_file_is_refused_by_line_and_not_shown(use, content, key_home):
    key = Fernet.generate_key().decode()
    path = key_home / "secret.keys"
    broken = f"{key}\n{content.format(key=key)}\n".encode("latin-1")
    path.write_bytes(broken)
    path.chmod(0o600)
    with pytest.raises(WarehouseError) as caught:
        use()
    told = "".join(traceback.format_exception(caught.value))
    assert f"line 2 of {path} is not a key" in told
    assert key not in told
    assert "CANARY" not in told
    assert path.read_bytes() == broken


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_file_that_others_may_read_is_refused(mode, key_home):
    add_key(get_settings())
    (key_home / "secret.keys").chmod(mode)
    with pytest.raises(WarehouseError, match=f"its mode is {mode:04o}") as caught:
        SecretBox.from_settings()
    assert "chmod 600" in caught.value.next_step


def test_a_key_file_that_is_a_folder_is_an_error_of_ours(key_home):
    (key_home / "secret.keys").mkdir(mode=0o700)
    with pytest.raises(WarehouseError, match="cannot be used: Is a directory"):
        SecretBox.from_settings()


def run(*arguments: str):
    app = typer.Typer(rich_markup_mode=None)
    app.callback()(lambda: None)
    commands.register(app)
    return CliRunner().invoke(app, ["secrets", *arguments])


@pytest.mark.parametrize("command", ["new-key", "rotate", "status"])
def test_every_command_has_help_with_examples(command):
    ended = run(command, "--help")
    assert ended.exit_code == 0
    assert f"  Examples:\n    warehouse secrets {command}" in ended.stdout


def test_new_key_says_what_to_do_next_and_shows_no_key(key_home, capfd):
    first = run("new-key")
    second = run("new-key", "--json")
    assert (first.exit_code, second.exit_code) == (0, 0)
    ids = [key.key_id for key in load_keys(get_settings())]
    said = json.loads(second.stdout)
    assert said == {"file": str(key_home / "secret.keys"), "current": ids[0], "keys": ids}
    told = capfd.readouterr().out + first.output
    assert "keep a copy of the file apart from the backups" in told
    third = run("new-key")
    told += capfd.readouterr().out + third.output
    assert "warehouse secrets rotate" in told
    for line in (key_home / "secret.keys").read_text().split():
        assert line not in told + second.output
