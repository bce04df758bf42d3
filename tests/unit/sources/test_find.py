"""Finding deliveries: paths, recognition by content, marketplace, account, shards."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from flows.errors import ExitCode, UnreadableDelivery, UsageError
from flows.sources.deliveries import DeliveryFormat
from flows.sources.find import find_deliveries
from flows.sources.read import read_delivery
from tests.unit.sources.written import (
    FIXTURES,
    a_row,
    download,
    find_one,
    flat_csv,
    flat_table,
    report_bytes,
    save,
    why,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a report, a download and a flat export in folders below it."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/b", "in/a"):
        (tmp_path / name).mkdir(parents=True)
    save(tmp_path / "in/b/report.json", report_bytes([a_row()]))
    save(tmp_path / "in/a/US_download.csv", download([a_row()]))
    pq.write_table(flat_table([a_row()]), tmp_path / "in/US_flat.parquet")
    return tmp_path


def names(*paths, marketplace=None):
    found, unread = find_deliveries(paths, marketplace=marketplace, account=None)
    assert not unread, unread
    return [delivery.name for delivery in found]


def usage(*paths, marketplace=None, account=None):
    with pytest.raises(UsageError) as caught:
        find_deliveries(paths, marketplace=marketplace, account=account)
    assert caught.value.exit_code is ExitCode.USAGE
    return str(caught.value)


ALL = ["in/US_flat.parquet", "in/a/US_download.csv", "in/b/report.json"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["in"], ALL),
        (["in/"], ALL),
        (["./in"], ["in/US_flat.parquet", "in/a/US_download.csv", "in/b/report.json"]),
        (["in/b/report.json", "in"], ["in/b/report.json", *ALL[:2]]),
        (["in/b/report.json"] * 2, ["in/b/report.json"]),
        (["in/*/*"], ALL[1:]),
        (["in/**/*.csv"], ["in/a/US_download.csv"]),
        (["in/?"], ALL[1:]),
    ],
)
def test_paths_folders_and_globs(paths, found):
    assert names(*paths) == found


def test_an_absolute_path_is_the_name(folder):
    path = str(folder / "in/b/report.json")
    assert names(path) == [path]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("missing", ["elsewhere", "in/c.json", "in/*.xml", "[", ""])
def test_what_is_not_there_is_a_usage_error(missing):
    assert "not there" in usage("in", missing)


def test_nothing_found_is_a_usage_error(folder):
    (folder / "empty").mkdir()
    assert "no delivery found in empty" in usage("empty")
    assert "no PATH was given" in usage()


def test_names_with_brackets_are_files_first(folder):
    save(folder / "US_[1].csv", download([a_row()]))
    assert names("US_[1].csv") == ["US_[1].csv"]


@pytest.mark.parametrize(
    "name",
    [".hidden", ".DS_Store", "~$US_x.csv", "x.tmp", "x.csv.part", "x.crdownload", "README.md"],
)
def test_what_is_clearly_no_delivery_is_passed_over_in_folders_and_said(folder, name, caplog):
    caplog.set_level("INFO")
    save(folder / "in" / name, b"not a delivery")
    assert names("in") == ALL
    assert name in caplog.text
    assert name not in "".join(names("in/*/*"))
    _, unread = find_deliveries([f"in/{name}"], marketplace="US", account=None)
    assert len(unread) == 1


def test_hidden_folders_are_passed_over(folder):
    (folder / "in/.git").mkdir()
    save(folder / "in/.git/x", b"x")
    assert names("in") == ALL


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "in/pipe")
    assert names("in") == ALL
    assert "not there" in usage("in/pipe")


def test_a_broken_link_is_told(folder):
    (folder / "in/link.csv").symlink_to("nowhere")
    found, unread = find_deliveries(["in"], marketplace=None, account=None)
    assert len(found) == 3
    assert "in/link.csv" in str(unread[0])


def test_the_others_go_on(folder):
    save(folder / "in/a/broken.json", b"{")
    found, unread = find_deliveries(["in"], marketplace=None, account=None)
    assert [delivery.name for delivery in found] == ALL
    assert [error.what for error in unread] == ["in/a/broken.json cannot be read"]
    assert unread[0].exit_code is ExitCode.PARTIAL


def test_delivered_when_the_file_was_changed(folder):
    os.utime(folder / "in/b/report.json", (0, 1_790_000_000))
    delivery = find_one(folder / "in/b/report.json")
    assert delivery.delivered_at == datetime.fromtimestamp(1_790_000_000, UTC)


@pytest.mark.parametrize("name", ["x", "x.json", "x.csv", "x.parquet", "US_x.txt", "x.csv.gz"])
def test_files_are_told_apart_by_content(tmp_path, name):
    path = tmp_path / name
    save(path, report_bytes([a_row()]))
    assert find_one(path).delivery_format is DeliveryFormat.SP_API_JSON
    save(path, b"\n \r\n" + report_bytes([a_row()]), zipped=True)
    assert find_one(path).delivery_format is DeliveryFormat.SP_API_JSON
    save(path, download([a_row()]))
    assert find_one(path).delivery_format is DeliveryFormat.SELLER_CENTRAL_CSV
    save(path, "\n\n" + download([a_row()]), zipped=True)
    assert find_one(path).delivery_format is DeliveryFormat.SELLER_CENTRAL_CSV
    save(path, flat_csv([a_row()]))
    assert find_one(path).delivery_format is DeliveryFormat.FLAT_CSV
    pq.write_table(flat_table([a_row()]), path)
    assert find_one(path).delivery_format is DeliveryFormat.FLAT_PARQUET


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"\n\n \n", "no Search Query Performance"),
        (b"\xff\xfe", "no Search Query Performance"),
        (b"PK\x03\x04rest of a workbook", "save its sheet as CSV"),
        (b"PAR1", "damaged"),
        (b"a,b,c\n1,2,3\n", "no Search Query Performance"),
        (b"[1, 2]", "no Search Query Performance"),
        (b"\x1f\x8b", "gzip"),
        (b"\x1f\x8bnot gzip at all", "gzip"),
        (bytes(range(256)), "no Search Query Performance"),
        (b'Reporting Range=["Weekly"],Select week=["Week 1"]\nASIN,ASIN Title\n', "neither"),
        (b"Search Query,Date\nx,2026-11-01\n", "no Search Query Performance"),
        (b"Search Query,Child ASIN\nx,B0EXAMPLE1\n", "columns are missing"),
    ],
)
def test_what_is_no_delivery_says_so(tmp_path, content, told):
    assert told in why(save(tmp_path / "file", content))


def marketplace_of(path, option):
    return find_one(path, option).marketplace_id


UK, DE, US = "A1F83G8C2ARO7P", "A1PA6795UKMFR9", "ATVPDKIKX0DER"


@pytest.mark.parametrize(
    ("name", "option", "found"),
    [
        ("UK_Search_Query_Performance_x.csv", None, UK),
        ("GB_Search_Query_Performance_x.csv", None, UK),
        ("de_search_query_performance_x.csv", None, DE),
        ("DE_anything", None, DE),
        ("DE_anything", "DE", DE),
        ("anything", "uk", UK),
        ("anything", " GB ", UK),
        ("anything", DE, DE),
        ("in_the_week.csv", "US", US),
        ("XX_anything", "US", US),
        ("DEx_anything", "US", US),
    ],
)
def test_the_marketplace_is_the_names_or_the_options(tmp_path, name, option, found):
    path = save(tmp_path / name, download([a_row()]))
    assert marketplace_of(path, option) == found
    save(path, flat_csv([a_row()]))
    assert marketplace_of(path, option) == found


def test_a_report_knows_its_marketplace(tmp_path):
    path = save(tmp_path / "DE_report.json", report_bytes([a_row()], marketplaces=[UK]))
    assert marketplace_of(path, None) == UK


@pytest.mark.parametrize("name", ["anything.csv", "XX_anything.csv", "us_anything.csv"])
def test_a_marketplace_that_nothing_tells_is_a_usage_error(tmp_path, name):
    path = save(tmp_path / name, download([a_row()]))
    told = usage(str(path))
    assert str(path) in told
    assert "--marketplace" in told


def test_an_unknown_marketplace_is_a_usage_error(folder):
    assert "US, CA, MX" in usage(str(folder), marketplace="ATLANTIS")
    assert "not known" in usage(str(folder), marketplace="")


@pytest.mark.parametrize("name", ["report", "DE_download.csv"])
def test_an_option_that_contradicts_the_file_refuses_the_file(tmp_path, name):
    content = download([a_row()]) if "csv" in name else report_bytes([a_row()], marketplaces=[DE])
    save(tmp_path / name, content)
    told = why(tmp_path / name, "US")
    assert "DE" in told
    assert "US" in told


@pytest.mark.parametrize("account", ["", "  ", "x" * 256, "a\0b", "a\ud800"])
def test_an_impossible_account_is_a_usage_error(folder, account):
    assert "--account" in usage(str(folder), account=account)


def test_an_account_given_is_of_every_delivery(folder):
    found, _ = find_deliveries([str(folder)], marketplace=None, account=" Mine ")
    assert {delivery.account_id for delivery in found} == {"Mine"}
    assert {key.account_id for delivery in found for key in delivery.declared} == {"Mine"}


def shards(folder, count, ending=".csv.gz"):
    for number in range(count):
        rows = [a_row(f"query {number}"), a_row(f"broken {number}", own_click_count=-1)]
        save(folder / f"US_export-{number:012}{ending}", flat_csv(rows), zipped=True)


def test_the_shards_of_an_export_are_one_delivery(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shards(tmp_path, 12)
    save(tmp_path / "US_other.csv", flat_csv([a_row()]))
    os.utime("US_export-000000000003.csv.gz", (0, 4_000_000_000))
    export, other = find_deliveries(["."], marketplace=None, account=None)[0]
    assert (export.name, other.name) == ("US_export-*.csv.gz", "US_other.csv")
    assert [path.name[10:22] for path in export.paths] == [f"{number:012}" for number in range(12)]
    assert export.delivered_at.year > 2090
    batches = list(read_delivery(export))
    queries = [query for batch in batches for query in batch.rows["query"].to_pylist()]
    assert queries == [f"query {number}" for number in range(12)]
    rejected = [row for batch in batches for row in batch.rejected]
    assert [(row.source_file, row.line) for row in rejected] == [
        (path.as_posix(), 3) for path in export.paths
    ]


def test_a_single_shard_is_a_delivery_of_its_own_name(tmp_path):
    shards(tmp_path, 1)
    assert find_one(tmp_path / "US_export-000000000000.csv.gz").name.endswith("000000.csv.gz")


@pytest.mark.parametrize("damage", ["missing", "broken", "another format"])
def test_an_export_is_read_whole_or_not_at_all(tmp_path, damage):
    shards(tmp_path, 3)
    second = tmp_path / "US_export-000000000001.csv.gz"
    if damage == "missing":
        second.unlink()
    elif damage == "broken":
        save(second, b"\x1f\x8b broken")
    else:
        pq.write_table(flat_table([a_row()]), second)
    found, unread = find_deliveries([str(tmp_path)], marketplace=None, account=None)
    assert not found
    assert "US_export-*.csv.gz" in unread[0].what
    assert "shard" in unread[0].why


def test_numbered_reports_and_moments_in_names_are_no_shards(tmp_path):
    for number in (0, 1):
        save(tmp_path / f"report-{number:012}.json", report_bytes([a_row()]))
        save(tmp_path / f"US_{202611071200 + number}.csv", flat_csv([a_row()]))
    found, unread = find_deliveries([str(tmp_path)], marketplace=None, account=None)
    assert (len(found), unread) == (4, [])


def test_the_fixtures_are_read_but_for_the_failed_report():
    found, unread = find_deliveries([str(FIXTURES)], marketplace=None, account=None)
    assert len(found) == 3
    assert all(isinstance(error, UnreadableDelivery) for error in unread)
    assert len(unread) == 1
