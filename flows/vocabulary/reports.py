"""The words that the reporting platform's tables take, one list each."""

from __future__ import annotations

from enum import StrEnum


class TemplateType(StrEnum):
    """What a dashboard was made for."""

    PERFORMANCE = "performance"
    ATTRIBUTION = "attribution"
    AUDIENCE = "audience"
    CUSTOM = "custom"


class WidgetType(StrEnum):
    """What a widget is."""

    CHART = "chart"
    TABLE = "table"
    METRIC_CARD = "metric_card"
    TEXT = "text"


class ChartType(StrEnum):
    """How a chart is drawn."""

    LINE = "line"
    BAR = "bar"
    PIE = "pie"
    SCATTER = "scatter"
    AREA = "area"


class PermissionLevel(StrEnum):
    """What a share lets its receiver do."""

    VIEW = "view"
    EDIT = "edit"


class CollectionType(StrEnum):
    """Why weeks are collected."""

    BACKFILL = "backfill"
    WEEKLY_UPDATE = "weekly_update"


class CollectionStatus(StrEnum):
    """Where a collection stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    PAUSED = "paused"


class WeekStatus(StrEnum):
    """Where one week of a collection stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class AggregationType(StrEnum):
    """The period that an aggregate covers."""

    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


class InsightType(StrEnum):
    """What an insight is about."""

    TREND_ANALYSIS = "trend_analysis"
    ANOMALY_DETECTION = "anomaly_detection"
    OPTIMIZATION = "optimization"


LISTS: dict[str, type[StrEnum]] = {
    "app.dashboards.template_type": TemplateType,
    "app.dashboard_widgets.widget_type": WidgetType,
    "app.dashboard_widgets.chart_type": ChartType,
    "app.dashboard_shares.permission_level": PermissionLevel,
    "app.report_data_collections.collection_type": CollectionType,
    "app.report_data_collections.status": CollectionStatus,
    "app.report_data_weeks.status": WeekStatus,
    "reporting.report_data_aggregates.aggregation_type": AggregationType,
    "app.ai_insights.insight_type": InsightType,
}
"""The columns with a list of their own; the database's CHECKs hold the same words."""
