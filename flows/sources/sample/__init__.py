"""Synthetic deliveries of search query reports: deterministic, realistic, and labelled so."""

from flows.sources.sample.bulk import write_flat_csv, write_flat_parquet, write_report_json
from flows.sources.sample.folder import (
    DEFAULT_ASINS,
    DEFAULT_LAST_WEEK,
    DEFAULT_MARKETPLACES,
    DEFAULT_QUERIES,
    DEFAULT_SEED,
    DEFAULT_WEEKS,
    SampleSummary,
    write_sample,
)

__all__ = [
    "DEFAULT_ASINS",
    "DEFAULT_LAST_WEEK",
    "DEFAULT_MARKETPLACES",
    "DEFAULT_QUERIES",
    "DEFAULT_SEED",
    "DEFAULT_WEEKS",
    "SampleSummary",
    "write_flat_csv",
    "write_flat_parquet",
    "write_report_json",
    "write_sample",
]
