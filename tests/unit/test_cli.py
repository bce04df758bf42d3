"""The command line's frame: help, exit codes, errors in three lines, nothing heavy to start."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import cli, console
from flows.errors import Busy, ExitCode, UnreadableDelivery, UsageError, WarehouseError
from flows.settings import PROJECT_ROOT, get_settings, quieten
from flows.warehouse.embedded import ensure_server

COMMANDS = sorted(
    command.name or command.callback.__name__ for command in cli.app.registered_commands
)
HEAVY = {"prefect", "pandas", "pyarrow", "dbt", "great_expectations", "sqlalchemy", "psycopg"}


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["warehouse", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def run_failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *arguments: str) -> int:
    """Run a command whose work ends in `error`."""

    def fail() -> list[object]:
        raise error

    monkeypatch.setattr("flows.doctor.examine", fail)
    return run_main(monkeypatch, "doctor", *arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, monkeypatch, capsys):
    assert run_main(monkeypatch, command, "--help") == 0
    text = capsys.readouterr().out
    assert f"Usage: warehouse {command}" in text
    assert f"  Examples:\n    warehouse {command}" in text


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from flows import cli; sys.argv[1:] = ['--help']\n"
        "try: cli.main()\n"
        f"finally: print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stderr == "[]\n"
    for command in COMMANDS:
        assert f"\n  {command} " in ended.stdout


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (WarehouseError("w", "y", "n"), 1),
        (UsageError("w", "y", "n"), 2),
        (UnreadableDelivery("w", "y", "n"), 3),
        (Busy("w", "y", "n"), 75),
    ],
)
def test_an_error_is_three_lines_and_its_exit_code(error, status, monkeypatch, capsys):
    assert run_failing(monkeypatch, error) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: w\n  why: y\n next: n\n"


def test_an_unexpected_error_hides_its_traceback_until_asked(monkeypatch, capsys):
    assert run_failing(monkeypatch, RuntimeError("boom\nmore")) == ExitCode.FAILED
    said = capsys.readouterr().err
    assert "RuntimeError: boom" in said
    assert "--debug" in said
    assert "Traceback" not in said
    assert "more" not in said


@pytest.mark.parametrize("error", [RuntimeError("boom"), WarehouseError("w", "y", "n")])
def test_debug_after_the_command_shows_the_traceback(error, monkeypatch, capsys):
    assert run_failing(monkeypatch, error, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_before_the_command_shows_the_traceback(own_home, run_cli, monkeypatch):
    own_home.write_text("a file where the folder should be")
    assert "Traceback" not in run_cli("up").stderr
    assert "Traceback" in run_cli("--debug", "up").stderr
    own_home.unlink()


ARGUMENT = st.sampled_from(["--debug", "--", "up", "-c", "a b", ""])


@given(st.lists(ARGUMENT))
def test_debug_is_taken_out_before_the_dashes_only(arguments):
    left, debug = cli.split_debug(arguments)
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    assert debug == ("--debug" in before)
    assert left == [word for word in before if word != "--debug"] + arguments[len(before) :]


@pytest.mark.parametrize("arguments", [["bogus"], ["up", "--bogus"], ["doctor", "extra"]])
def test_a_wrong_call_is_usage(arguments, monkeypatch, capsys):
    assert run_main(monkeypatch, *arguments) == ExitCode.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "Error: " in said.err


def test_a_wrong_setting_is_usage(run_cli):
    ended = run_cli("up", env={"PGHOST": "localhost", "PGPORT": "secret-word"})
    assert ended.returncode == ExitCode.USAGE
    assert "error: the setting PGPORT cannot be used" in ended.stderr
    assert "secret-word" not in ended.stderr


def test_interrupt_ends_quietly_with_130(own_home):
    from flows.warehouse.embedded import _lock

    with _lock(own_home):
        waiting = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up"],
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background has SIGINT ignored, which children inherit.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        wait_until(lambda: str(own_home / "lock") in open_files(waiting.pid))
        waiting.send_signal(signal.SIGINT)
        output, errors = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert "Traceback" not in output + errors


def open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except OSError:
            continue
    return found


def wait_until(true: object, seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_deleting_asks_and_needs_a_terminal(own_home, run_cli):
    own_home.mkdir()
    (own_home / "data").mkdir()
    refused = run_cli("down", "--delete-data")
    assert refused.returncode == ExitCode.USAGE
    assert "--yes" in refused.stderr
    assert (own_home / "data").exists()
    done = run_cli("down", "--delete-data", "--yes", "--json")
    assert json.loads(done.stdout) == {"stopped": False, "deleted": True, "external": False}
    assert not own_home.exists()


def on_a_terminal(command: list[str], **variables: str) -> str:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        command,
        cwd=PROJECT_ROOT,
        env=environment | {"TERM": "xterm-256color"} | variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        said = b""
        while True:
            try:
                read = os.read(ours, 4096)
            except OSError:
                break
            if not read:
                break
            said += read
    os.close(ours)
    return said.decode()


def test_colours_only_on_a_terminal_and_not_with_no_color(own_home, run_cli):
    own_home.write_text("a file where the folder should be")
    command = [sys.executable, "-m", "flows.cli", "up"]
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    assert coloured.search(on_a_terminal(command))
    assert not coloured.search(on_a_terminal(command, NO_COLOR="1"))
    assert "\x1b" not in run_cli("up").stderr
    own_home.unlink()


@given(st.text())
def test_what_is_printed_cannot_drive_a_terminal(text):
    shown = console.printable(text)
    assert all(character.isprintable() or character == "\n" for character in shown)
    if text.isprintable():
        assert shown == text


def test_text_of_users_is_not_markup(capsys, monkeypatch):
    console.stdout.cache_clear()
    console.say("[bold]a[/bold] :smile: [link=x]")
    console.say_table(["[red]c[/red]"], [["[b]x"], [None]])
    shown = capsys.readouterr().out
    console.stdout.cache_clear()
    for text in ("[bold]a[/bold] :smile: [link=x]", "[red]c[/red]", "[b]x", "–"):
        assert text in shown


def test_psql_gets_its_arguments_and_no_password_in_them(own_home, run_cli):
    password = ensure_server(get_settings()).password.get_secret_value()
    ended = run_cli("psql", "--", "-At", "-c", r"\! tr '\0' ' ' < /proc/$PPID/cmdline")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(r"psql -At -c \! tr")
    assert password not in ended.stdout
    assert run_cli("psql", "--", "-c", "select bogus").returncode == 1


def test_doctor_says_what_is_wrong_and_what_to_do(own_home, run_cli):
    resting = {check["name"]: check for check in json.loads(run_cli("doctor", "--json").stdout)}
    assert resting["embedded server"]["verdict"] == "warn"
    assert not own_home.exists()

    ensure_server(get_settings())
    (own_home.parent / ".env").chmod(0o644)
    half_made = own_home / "data-x.draft"
    half_made.mkdir()
    behind = run_cli("doctor", "--json")
    assert behind.returncode == ExitCode.FAILED
    checks = {check["name"]: check for check in json.loads(behind.stdout)}
    assert checks["migrations"]["verdict"] == "fail"
    assert checks["permissions"]["next_step"] == f"chmod 600 {own_home.parent / '.env'}"
    assert str(half_made) in checks["leftovers"]["found"]

    assert run_cli("up").returncode == 0
    healthy = run_cli("doctor", "--json")
    verdicts = {check["name"]: check["verdict"] for check in json.loads(healthy.stdout)}
    assert healthy.returncode == 0
    assert {name for name, verdict in verdicts.items() if verdict != "ok"} <= {"uv", "disk"}
    assert {"python", "data checksums", "clock", "time zone", "socket path"} < set(verdicts)
    assert "embedded server" in run_cli("doctor").stdout


def test_telemetry_is_off_before_a_command_runs(monkeypatch):
    for name in ("DO_NOT_TRACK", "DBT_SEND_ANONYMOUS_USAGE_STATS", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GX_ANALYTICS_ENABLED", "true")
    quieten()
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["DBT_SEND_ANONYMOUS_USAGE_STATS"] == "false"
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
    assert os.environ["PREFECT_HOME"].endswith("/prefect")
    monkeypatch.setenv("PREFECT_HOME", "/mine")
    quieten()
    assert os.environ["PREFECT_HOME"] == "/mine"
