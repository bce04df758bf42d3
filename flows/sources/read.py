"""Read a delivery: its rows in batches, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from flows.sources.deliveries import Delivery, DeliveryFormat, ParsedBatch
from flows.sources.files import unreadable
from flows.sources.flat_table import (
    judge_batches,
    read_flat_csv,
    read_flat_parquet,
    read_weeks,
)
from flows.sources.marketplaces import find_marketplace
from flows.sources.normalise import Notation
from flows.sources.row_rules import Terms
from flows.sources.seller_central_csv import read_seller_central
from flows.sources.sp_api_json import read_sp_api_json


def read_delivery(delivery: Delivery, *, batch_rows: int = 65_536) -> Iterator[ParsedBatch]:
    """The delivery's rows in `ROW_SCHEMA`, and the rejected ones, at most `batch_rows` at a time.

    Memory stays the same however long the file is. Raises `UnreadableDelivery` where the file
    breaks, which may be after good batches; the delivery is then not to be loaded at all.
    """
    if delivery.open_batches is not None:
        yield from judge_batches(delivery.open_batches(), _terms(delivery, delivery.name))
    for path in delivery.paths:
        yield from _read_file(delivery, path, batch_rows)


def _read_file(delivery: Delivery, path: Path, batch_rows: int) -> Iterator[ParsedBatch]:
    terms = _terms(delivery, _source_file(delivery, path))
    match delivery.delivery_format:
        case DeliveryFormat.SP_API_JSON:
            assert delivery.period_start is not None
            assert delivery.period_end is not None
            period = (delivery.period_start, delivery.period_end)
            yield from read_sp_api_json(path, terms, period, batch_rows)
        case DeliveryFormat.SELLER_CENTRAL_CSV:
            yield from read_seller_central(path, terms, batch_rows)
        case DeliveryFormat.FLAT_CSV:
            yield from read_flat_csv(path, terms, batch_rows)
        case DeliveryFormat.FLAT_PARQUET:
            yield from read_flat_parquet(path, terms, batch_rows)


def _source_file(delivery: Delivery, path: Path) -> str:
    """Which file a row is said to come from: of an export in shards, the shard."""
    if len(delivery.paths) == 1:
        return delivery.name
    return str(PurePosixPath(delivery.name).with_name(path.name))


def _terms(delivery: Delivery, source_file: str) -> Terms:
    marketplace = find_marketplace(delivery.marketplace_id)
    if marketplace is None:
        raise unreadable(source_file, f"its marketplace {delivery.marketplace_id} is not known")
    in_report = delivery.delivery_format is DeliveryFormat.SP_API_JSON
    single = delivery.delivery_format is DeliveryFormat.SELLER_CENTRAL_CSV
    return Terms(
        source_file=source_file,
        notation=Notation(percent=not in_report),
        currency_code=marketplace.currency_code,
        account_id=delivery.account_id,
        subject=delivery.declared[0].subject if single else None,
        read_days=read_weeks,
    )
