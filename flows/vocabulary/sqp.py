"""The words that the tables of Search Query Performance and its syncs take, one list each."""

from __future__ import annotations

from enum import StrEnum

from flows.sources.deliveries import PeriodType, RejectReason, ReportView
from flows.warehouse.run_log import SyncStatus, SyncType


class SliceStatus(StrEnum):
    """Where the newest delivery of a slice stands."""

    LANDED = "landed"
    ACCEPTED = "accepted"
    HELD = "held"


class CheckType(StrEnum):
    """What kind of check it was; the first three are the specification's."""

    ROW_COUNT = "row_count"
    SUM_VALIDATION = "sum_validation"
    NULL_CHECK = "null_check"
    SCHEMA = "schema"
    RANGE = "range"
    IDENTITY = "identity"
    VOLUME = "volume"
    REJECTED_ROWS = "rejected_rows"
    DBT_TEST = "dbt_test"
    DEFAULT_PARTITION = "default_partition"
    ALERT = "alert"
    FRESHNESS = "freshness"


class CheckStatus(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    WARNING = "warning"


LISTS: dict[str, type[StrEnum]] = {
    "sqp.sync_log.sync_type": SyncType,
    "sqp.sync_log.sync_status": SyncStatus,
    "sqp.data_quality_checks.check_type": CheckType,
    "sqp.data_quality_checks.check_status": CheckStatus,
    "landing.sqp_slices.period_type": PeriodType,
    "landing.sqp_slices.report_view": ReportView,
    "landing.sqp_slices.slice_status": SliceStatus,
    "landing.sqp_asin.period_type": PeriodType,
    "landing.sqp_brand.period_type": PeriodType,
    "landing.rejected_rows.reason_code": RejectReason,
}
"""The columns with a list of their own; the database's CHECKs hold the same words."""
