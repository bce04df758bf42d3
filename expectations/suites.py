"""The suites: what is expected of landed slices, of the landing tables, and of the summaries.

To add an expectation on what landed:

1. Find its measure in `profile.py` (`smallest_price`, `rows_found` …), or add one there: a name
   and the SQL that computes it, one number per slice.
2. Add one expectation on the measure's name to `landed_slices()`: any that Great Expectations
   judges value by value, so that it says which slices fail.
   A failing `severity=CRITICAL` holds the slice back; `severity=WARNING` only says so.
   `description` is the sentence that people read; `meta=recorded(…)` says how the result is kept
   in `sqp.data_quality_checks`. A number that decides belongs into `thresholds.py`.
3. Break it in `tests/integration/test_expectations.py`: one slice that fails it, and only that
   slice held. `pytest tests/integration/test_expectations.py` runs without anything else.

Two expectations recorded under one name, a warning and a critical one, are one check with two
thresholds. A slice without the measure (NULL) has nothing to fail: the message counts such slices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from great_expectations.core import ExpectationSuite
from great_expectations.expectations.core import (  # type: ignore[attr-defined] # GX marks no exports
    ExpectColumnPairValuesToBeEqual,
    ExpectColumnValuesToBeBetween,
    ExpectColumnValuesToNotBeNull,
)
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from expectations.profile import FILLED, WELL_FILLED
from expectations.reconciliation import MEASURES
from expectations.thresholds import (
    FAIL_DIFFERENCE_PERCENT,
    MAX_COUNT,
    MAX_IDENTITY_VIOLATIONS,
    MAX_REJECTED_SHARE,
    MAX_VOLUME_RATIO,
    MIN_VOLUME_RATIO,
    SHARE_TOLERANCE,
    VOLUME_PERIODS,
    WARN_DIFFERENCE_PERCENT,
)

CRITICAL, WARNING = FailureSeverity.CRITICAL, FailureSeverity.WARNING


def recorded(
    check_type: str,
    check_name: str,
    *,
    column: str | None = None,
    source: str | None = None,
    target: str | None = None,
    violations: str | None = None,
) -> dict[str, Any]:
    """How an expectation's result is kept in `sqp.data_quality_checks`.

    Args:
        check_type: one of the table's list (`range`, `identity` …).
        check_name: the check's name, the same from run to run.
        column: the column that it is about, in the words of a parsed row (`own_click_share`).
        source, target: the measures whose sums are the check's two sides, if it has two.
        violations: instead of `target`, the measure whose sum is missing from the source's.
    """
    return {
        "check_type": check_type,
        "check_name": check_name,
        "column_name": column,
        "source": source,
        "target": target,
        "violations": violations,
    }


def landed_slices() -> ExpectationSuite:
    """What is expected of every landed slice before it is accepted."""
    return ExpectationSuite(
        name="landed_slices",
        expectations=[
            ExpectColumnPairValuesToBeEqual(
                column_A="row_count",
                column_B="rows_found",
                severity=CRITICAL,
                description="a slice has the rows that the register says",
                meta=recorded("row_count", "rows_landed", source="row_count", target="rows_found"),
            ),
            *(_is_filled(column, CRITICAL) for column in FILLED),
            *(_is_filled(column, WARNING) for column in WELL_FILLED),
            ExpectColumnValuesToBeBetween(
                column="missing_shares",
                max_value=0,
                severity=WARNING,
                description="a share is given wherever its total is above zero",
                meta=recorded(
                    "null_check",
                    "shares_are_filled",
                    source="rows_found",
                    violations="missing_shares",
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="missing_currencies",
                max_value=0,
                severity=WARNING,
                description="a price has a currency",
                meta=recorded(
                    "null_check",
                    "prices_have_a_currency",
                    column="currency_code",
                    source="rows_found",
                    violations="missing_currencies",
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="not_numbers",
                max_value=0,
                severity=CRITICAL,
                description="shares, rates and prices are numbers",
                meta=recorded("range", "values_are_numbers"),
            ),
            ExpectColumnValuesToBeBetween(
                column="smallest_count",
                min_value=0,
                severity=CRITICAL,
                description="counts are not negative",
                meta=recorded("range", "counts_not_negative"),
            ),
            ExpectColumnValuesToBeBetween(
                column="largest_count",
                max_value=MAX_COUNT,
                severity=CRITICAL,
                description=f"counts are at most {MAX_COUNT:,}",
                meta=recorded("range", "counts_credible"),
            ),
            ExpectColumnValuesToBeBetween(
                column="smallest_share",
                min_value=0,
                severity=CRITICAL,
                description="shares are not negative",
                meta=recorded("range", "shares_not_negative"),
            ),
            ExpectColumnValuesToBeBetween(
                column="largest_share",
                max_value=1,
                severity=CRITICAL,
                description="shares are fractions of at most 1",
                meta=recorded("range", "shares_at_most_one"),
            ),
            ExpectColumnValuesToBeBetween(
                column="smallest_rate",
                min_value=0,
                severity=CRITICAL,
                description="rates are not negative",
                meta=recorded("range", "rates_not_negative"),
            ),
            ExpectColumnValuesToBeBetween(
                column="smallest_price",
                min_value=0,
                severity=CRITICAL,
                description="prices are not negative",
                meta=recorded("range", "prices_not_negative"),
            ),
            ExpectColumnValuesToBeBetween(
                column="smallest_score",
                min_value=1,
                severity=WARNING,
                description="the best search query score is 1",
                meta=recorded("range", "score_at_least_one", column="search_query_score"),
            ),
            ExpectColumnValuesToBeBetween(
                column="largest_excess",
                max_value=0,
                severity=CRITICAL,
                description="an own count is part of its total",
                meta=recorded("identity", "own_within_total"),
            ),
            ExpectColumnValuesToBeBetween(
                column="share_mismatch_share",
                max_value=MAX_IDENTITY_VIOLATIONS,
                severity=CRITICAL,
                description=f"share = own ÷ total within {SHARE_TOLERANCE:g}"
                f" in all but {MAX_IDENTITY_VIOLATIONS:.0%} of a slice's rows",
                meta=recorded(
                    "identity",
                    "share_is_own_over_total",
                    source="rows_found",
                    violations="share_mismatches",
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="share_mismatches",
                max_value=0,
                severity=WARNING,
                description=f"share = own ÷ total within {SHARE_TOLERANCE:g}",
                meta=recorded(
                    "identity",
                    "share_is_own_over_total",
                    source="rows_found",
                    violations="share_mismatches",
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="rate_mismatches",
                max_value=0,
                severity=WARNING,
                description=f"rate = stage total ÷ search query volume within {SHARE_TOLERANCE:g}",
                meta=recorded(
                    "identity",
                    "rate_is_total_over_volume",
                    source="rows_found",
                    violations="rate_mismatches",
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="purchases_above_clicks",
                max_value=0,
                severity=WARNING,
                description="own purchases do not exceed own clicks (24-hour attribution may)",
                meta=recorded(
                    "identity",
                    "purchases_within_clicks",
                    column="own_purchase_count",
                    source="rows_found",
                    violations="purchases_above_clicks",
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="mixed_currencies",
                max_value=0,
                severity=CRITICAL,
                description="a slice's prices are in one currency: it is of one marketplace",
                meta=recorded("identity", "one_currency", column="currency_code"),
            ),
            ExpectColumnValuesToBeBetween(
                column="misfiled_rows",
                max_value=0,
                severity=CRITICAL,
                description="a row says the same account, marketplace, period and subject"
                " as its slice",
                meta=recorded(
                    "identity",
                    "rows_belong_to_their_slice",
                    source="rows_found",
                    violations="misfiled_rows",
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="volume_ratio",
                min_value=MIN_VOLUME_RATIO,
                max_value=MAX_VOLUME_RATIO,
                severity=WARNING,
                description=f"a slice has {MIN_VOLUME_RATIO:g} to {MAX_VOLUME_RATIO:g} times the"
                f" rows of its recent periods (median of up to {VOLUME_PERIODS})",
                meta=recorded(
                    "volume",
                    "rows_against_recent_median",
                    source="recent_median_rows",
                    target="row_count",
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="rejected_share",
                max_value=MAX_REJECTED_SHARE,
                severity=CRITICAL,
                description=f"at most {MAX_REJECTED_SHARE:.0%} of a slice's rows were rejected",
                meta=recorded(
                    "rejected_rows", "rows_rejected", source="delivered_count", target="row_count"
                ),
            ),
            ExpectColumnValuesToBeBetween(
                column="rejected_count",
                max_value=0,
                severity=WARNING,
                description="no row was rejected",
                meta=recorded(
                    "rejected_rows", "rows_rejected", source="delivered_count", target="row_count"
                ),
            ),
        ],
    )


def _is_filled(column: str, severity: FailureSeverity) -> Expectation:
    return ExpectColumnValuesToBeBetween(
        column=f"missing_{column}",
        max_value=0,
        severity=severity,
        description=f"{column} is filled",
        meta=recorded(
            "null_check",
            f"{column}_is_filled",
            column=column,
            source="rows_found",
            violations=f"missing_{column}",
        ),
    )


def landing_columns() -> ExpectationSuite:
    """What is expected of a landing table itself: the columns that sources fill, typed as said."""
    return ExpectationSuite(
        name="landing_columns",
        expectations=[
            ExpectColumnValuesToNotBeNull(
                column="found_type",
                severity=CRITICAL,
                description="every column that sources fill is there",
                meta=recorded("schema", "columns_present"),
            ),
            ExpectColumnPairValuesToBeEqual(
                column_A="expected_type",
                column_B="found_type",
                ignore_row_if="either_value_is_missing",
                severity=CRITICAL,
                description="every column has its type and may be empty only where it should",
                meta=recorded("schema", "column_types"),
            ),
            ExpectColumnValuesToNotBeNull(
                column="expected_type",
                severity=WARNING,
                description="no column is there that no source fills",
                meta=recorded("schema", "columns_known"),
            ),
        ],
    )


def summary_against_source() -> ExpectationSuite:
    """What is expected of a summary beside its source, slice by slice of the summary."""
    return ExpectationSuite(
        name="summary_against_source",
        expectations=[each for measure in MEASURES for each in _agrees(measure)],
    )


def landed_against_log() -> ExpectationSuite:
    """What is expected of a run's rows in landing beside those that its log counted as good."""
    return ExpectationSuite(
        name="landed_against_log", expectations=list(_agrees("row_count", "rows_logged_landed"))
    )


def _agrees(measure: str, check_name: str | None = None) -> Iterable[Expectation]:
    """Source and target agree in a measure: one check, with a threshold to warn and one to fail."""
    check_type = {"row": "row_count", "null": "null_check"}.get(
        measure.split("_")[0], "sum_validation"
    )
    for severity, percent in (
        (CRITICAL, FAIL_DIFFERENCE_PERCENT),
        (WARNING, WARN_DIFFERENCE_PERCENT),
    ):
        yield ExpectColumnValuesToBeBetween(
            column=f"gap_{measure}",
            max_value=percent,
            severity=severity,
            description=f"{measure} differs by at most {percent:g} % between source and target",
            meta=recorded(
                check_type,
                check_name or f"{measure}_matches",
                column=None if measure == "row_count" else measure.removeprefix("null_"),
                source=f"source_{measure}",
                target=f"target_{measure}",
            ),
        )
