"""Find deliveries: expand what the user typed, and recognise each file by its content."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from flows.errors import UnreadableDelivery, UsageError
from flows.sources.csv_text import HEAD_BYTES, find_delimiter, head_lines, split_cells
from flows.sources.deliveries import Delivery, DeliveryFormat, Inspection, SliceKey
from flows.sources.files import open_unzipped, open_utf8, reading, unreadable
from flows.sources.flat_table import inspect_flat_csv, inspect_flat_parquet, is_flat_header
from flows.sources.marketplaces import Marketplace, all_marketplaces, find_marketplace
from flows.sources.row_rules import ACCOUNT_LENGTH, DEFAULT_ACCOUNT, is_storable
from flows.sources.seller_central_csv import inspect_seller_central, is_seller_central
from flows.sources.sp_api_json import inspect_sp_api_json

PARQUET_MAGIC = b"PAR1"
WORKBOOK_MAGICS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
NOT_DELIVERIES = re.compile(r"\.|~\$|.*\.(?:tmp|part|partial|crdownload|md)$", re.IGNORECASE)
"""Names that are passed over in folders and globs: hidden files, spreadsheets' lock files, files
still being written, and notes in Markdown. A file that is named itself is always read."""

FLAT_FORMATS = (DeliveryFormat.FLAT_CSV, DeliveryFormat.FLAT_PARQUET)
UNDERSTOOD = (
    "deliver SP-API reports (JSON), Seller Central downloads (CSV) or exports of the flat table"
    " (CSV or Parquet)"
)
WHOLE_EXPORT = "deliver all shards of the export together"

_SHARD = re.compile(r"(?P<stem>.*?)(?P<number>0{6}\d{6})(?P<ending>(?:\.[A-Za-z]+)*)", re.ASCII)
_PREFIX = re.compile(r"(?P<country>[A-Z]{2})_|(?i:(?P<any_case>[A-Z]{2})_Search_Query_Performance)")

log = logging.getLogger(__name__)


class _File(NamedTuple):
    """A file to look at, and how the user would call it."""

    name: str
    path: Path


def find_deliveries(
    paths: Sequence[str], *, marketplace: str | None, account: str | None
) -> tuple[list[Delivery], list[UnreadableDelivery]]:
    """The deliveries among files, folders (with all below them) and globs, in their order.

    Each file is told apart by what is in it; `marketplace` (a country or Amazon's id) and
    `account` say what files do not say themselves. The shards of one BigQuery export are one
    delivery. Files that cannot be understood come back as errors beside the deliveries. Raises
    `UsageError` where the call cannot mean anything: nothing there, an unknown marketplace, or
    a file whose marketplace nothing tells.
    """
    choice = _Choice(_marketplace_option(marketplace), _account_option(account))
    found: list[Delivery] = []
    unread: list[UnreadableDelivery] = []
    for files in _exports(_expand(paths)):
        deliveries, errors = _recognise(files, choice)
        found += deliveries
        unread += errors
    return found, unread


class _Choice(NamedTuple):
    """What the user said about all files."""

    marketplace: Marketplace | None
    account: str | None


def _marketplace_option(option: str | None) -> Marketplace | None:
    if option is None:
        return None
    marketplace = find_marketplace(option)
    if marketplace is None:
        countries = ", ".join(known.country_code for known in all_marketplaces())
        raise UsageError(
            f"--marketplace {option!a} is not known",
            "a country or one of Amazon's marketplace ids is expected",
            f"use one of {countries}",
        )
    return marketplace


def _account_option(option: str | None) -> str | None:
    if option is None:
        return None
    account = option.strip()
    if not account or len(account) > ACCOUNT_LENGTH or not is_storable(account):
        raise UsageError(
            f"--account {option[:80]!a} cannot be an account",
            f"a name of 1 to {ACCOUNT_LENGTH} characters is expected",
            "give the account's name or leave the option out",
        )
    return account


def _expand(paths: Sequence[str]) -> list[_File]:
    """The files that paths mean, each once, those of a folder or glob sorted."""
    if not paths:
        raise UsageError(
            "no PATH was given",
            "deliveries are read from files, or from BigQuery with --from bigquery",
            "name files, folders or globs that hold deliveries",
        )
    files: dict[Path, _File] = {}
    for given in paths:
        for name in _names(given):
            path = Path(name)
            files.setdefault(path.resolve(), _File(path.as_posix(), path))
    if not files:
        raise UsageError(
            f"no delivery found in {', '.join(paths)}",
            "there is no file in it that could be one",
            "name files, folders or globs that hold deliveries",
        )
    return list(files.values())


def _names(given: str) -> list[str]:
    """The files that one path means: itself, what is in it, or what it matches."""
    if given and Path(given).is_dir():
        return _inside(given)
    if Path(given).is_file():
        return [given]
    names: list[str] = []
    for match in sorted(glob.glob(given, recursive=True)):  # noqa: PTH207 - keeps what was typed
        if Path(match).is_dir():
            names += _inside(match)
        elif _may_be_delivery(match):
            names.append(match)
    if not names:
        raise UsageError(
            f"{given} is not there",
            "no file or folder has that name, and nothing matches it",
            "check the path; relative ones start at the current folder",
        )
    return names


def _inside(folder: str) -> list[str]:
    names: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [os.path.join(parent, name) for name in files]  # noqa: PTH118
    return [name for name in sorted(names) if _may_be_delivery(name)]


def _may_be_delivery(name: str) -> bool:
    path = Path(name)
    if NOT_DELIVERIES.match(path.name):
        log.info("%s is passed over: its name is not a delivery's", name)
        return False
    if path.exists() and not path.is_file():
        log.info("%s is passed over: it is not a regular file", name)
        return False
    return True


def _exports(files: list[_File]) -> Iterator[list[_File]]:
    """Files that may belong together because BigQuery would name the shards of an export so."""
    groups: dict[tuple[str, ...], list[_File]] = {}
    for file in files:
        shard = _SHARD.fullmatch(file.path.name)
        key = (str(file.path.parent), shard["stem"], shard["ending"]) if shard else (file.name,)
        groups.setdefault(key, []).append(file)
    for group in groups.values():
        yield sorted(group, key=lambda file: file.path.name)


def _recognise(
    files: list[_File], choice: _Choice
) -> tuple[list[Delivery], list[UnreadableDelivery]]:
    inspected: list[tuple[_File, Inspection]] = []
    errors: list[UnreadableDelivery] = []
    for file in files:
        try:
            inspected.append((file, inspect(file.path, file.name)))
        except UnreadableDelivery as error:
            errors.append(error)
    deliveries: list[Delivery] = []
    try:
        if any(inspection.delivery_format in FLAT_FORMATS for _, inspection in inspected):
            return [_export(files, inspected, errors, choice)], []
    except UnreadableDelivery as error:
        return [], [error]
    for file, inspection in inspected:
        try:
            deliveries.append(_delivery(file.name, (file.path,), inspection, choice))
        except UnreadableDelivery as error:
            errors.append(error)
    return deliveries, errors


def _export(
    files: list[_File],
    inspected: list[tuple[_File, Inspection]],
    errors: list[UnreadableDelivery],
    choice: _Choice,
) -> Delivery:
    """One export of the flat table, whole: without one of its shards its slices would shrink."""
    shard = _SHARD.fullmatch(files[0].path.name)
    if shard is None:
        return _delivery(files[0].name, (files[0].path,), inspected[0][1], choice)
    together = f"{shard['stem']}*{shard['ending']}"
    name = str(PurePosixPath(files[0].name).with_name(together)) if files[1:] else files[0].name
    if errors:
        raise unreadable(name, f"one of its shards cannot be: {errors[0]}", WHOLE_EXPORT)
    for number, file in enumerate(files):
        if f"{number:012}" not in file.path.name:
            raise unreadable(name, f"its shard {number:012} is missing", WHOLE_EXPORT)
    if len({inspection.delivery_format for _, inspection in inspected}) > 1:
        raise unreadable(name, "its shards are of several formats", WHOLE_EXPORT)
    return _delivery(name, tuple(file.path for file in files), inspected[0][1], choice)


def inspect(path: Path, name: str) -> Inspection:
    """Recognise one file by its content; raises `UnreadableDelivery` where it is none we know."""
    with reading(name):
        with path.open("rb") as file:
            is_parquet = file.read(4) == PARQUET_MAGIC
        with open_unzipped(path) as file:
            start = file.read(8)
        if not start:
            raise unreadable(name, "it is empty")
        if is_parquet:
            return inspect_flat_parquet(path, name)
        if start.startswith(PARQUET_MAGIC):
            raise unreadable(name, "it is Parquet inside gzip", "unzip it")
        if start.startswith(WORKBOOK_MAGICS):
            raise unreadable(name, "it is a workbook or an archive", "save its sheet as CSV")
        with open_utf8(path) as stream:
            head = stream.read(HEAD_BYTES)
    if head.lstrip()[:1] == b"{":
        return inspect_sp_api_json(path, name)
    lines = head_lines(head)
    if is_seller_central(lines):
        return inspect_seller_central(path, name)
    if lines and is_flat_header(split_cells(lines[0].text, find_delimiter(lines[0].text))):
        return inspect_flat_csv(path, name)
    raise unreadable(name, "it is no Search Query Performance delivery", UNDERSTOOD)


def _delivery(
    name: str, paths: tuple[Path, ...], inspection: Inspection, choice: _Choice
) -> Delivery:
    marketplace_id = _marketplace_id(name, inspection, choice.marketplace)
    account = choice.account
    if account is None and inspection.delivery_format not in FLAT_FORMATS:
        account = DEFAULT_ACCOUNT
    with reading(name):
        modified = max(path.stat().st_mtime for path in paths)
    return Delivery(
        name=name,
        paths=paths,
        delivery_format=inspection.delivery_format,
        report_view=inspection.report_view,
        period_type=inspection.period_type,
        marketplace_id=marketplace_id,
        delivered_at=datetime.fromtimestamp(modified, UTC),
        account_id=account,
        period_start=inspection.period_start,
        period_end=inspection.period_end,
        declared=_declared(inspection, marketplace_id, account),
    )


def _declared(
    inspection: Inspection, marketplace_id: str, account: str | None
) -> tuple[SliceKey, ...]:
    if account is None or inspection.period_start is None or inspection.period_end is None:
        return ()
    return tuple(
        SliceKey(
            account_id=account,
            marketplace_id=marketplace_id,
            report_view=inspection.report_view.value,
            period_type=inspection.period_type.value,
            period_start=inspection.period_start,
            period_end=inspection.period_end,
            subject=subject,
        )
        for subject in inspection.subjects
    )


def _marketplace_id(name: str, inspection: Inspection, option: Marketplace | None) -> str:
    """What the file says, else what its name says, else the option; they must not disagree."""
    says, marketplace = "the report is about", find_marketplace(inspection.marketplace_id or "")
    if marketplace is None:
        says, marketplace = "its name says", _named_marketplace(name)
    if marketplace is not None and option is not None and option != marketplace:
        raise unreadable(
            name,
            f"{says} {marketplace.country_code}, --marketplace says {option.country_code}",
            "leave --marketplace out, or deliver the files of each marketplace by themselves",
        )
    chosen = marketplace or option
    if chosen is None:
        raise UsageError(
            f"{name} does not say its marketplace",
            "neither what is in it nor its name (US_…, UK_…) tells",
            "give it with --marketplace, for example --marketplace US",
        )
    return chosen.marketplace_id


def _named_marketplace(name: str) -> Marketplace | None:
    """The marketplace that a file's name begins with: `US_…`, `GB_…`."""
    found = _PREFIX.match(PurePosixPath(name).name)
    return find_marketplace(found["country"] or found["any_case"]) if found else None
