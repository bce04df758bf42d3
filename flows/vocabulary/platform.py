"""The fixed lists of the ads platform's tables; the database's types hold the same ones."""

from __future__ import annotations

from enum import StrEnum


class Platform(StrEnum):
    """Where an ad may run."""

    GOOGLE_ADS = "google_ads"
    FACEBOOK_ADS = "facebook_ads"
    MICROSOFT_ADS = "microsoft_ads"
    TIKTOK_ADS = "tiktok_ads"
    AMAZON_ADS = "amazon_ads"


class AdStatus(StrEnum):
    """What `app.ads.status` may say."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    ARCHIVED = "archived"


class AssetType(StrEnum):
    """The part that an asset plays in an ad."""

    PRIMARY_IMAGE = "primary_image"
    SECONDARY_IMAGE = "secondary_image"
    LOGO = "logo"
    VIDEO = "video"
    DOCUMENT = "document"


class CampaignStatus(StrEnum):
    """What `app.campaigns.status` may say."""

    PENDING = "pending"
    ACTIVE = "active"
    PAUSED = "paused"
    ERROR = "error"
    COMPLETED = "completed"


class DeploymentType(StrEnum):
    """What a deployment does to a campaign on its platform."""

    CREATE = "create"
    UPDATE = "update"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"


class DeploymentStatus(StrEnum):
    """How far a deployment has come."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class ReportType(StrEnum):
    """What a report is about."""

    PERFORMANCE = "performance"
    CONVERSION = "conversion"
    AUDIENCE = "audience"
    CUSTOM = "custom"


class ReportInstanceStatus(StrEnum):
    """How far the making of a report's file has come."""

    PENDING = "pending"
    GENERATING = "generating"
    COMPLETED = "completed"
    FAILED = "failed"


class AuditAction(StrEnum):
    """What `app.audit_logs.action` may say."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    LOGIN = "login"
    LOGOUT = "logout"


class JobStatus(StrEnum):
    """How far a background job has come."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


LISTS: dict[str, type[StrEnum]] = {
    "app.user_api_credentials.platform": Platform,
    "app.platform_assets.platform": Platform,
    "app.ads.status": AdStatus,
    "app.ad_assets.asset_type": AssetType,
    "app.campaigns.platform": Platform,
    "app.campaigns.status": CampaignStatus,
    "app.campaign_deployments.deployment_type": DeploymentType,
    "app.campaign_deployments.status": DeploymentStatus,
    "app.reports.report_type": ReportType,
    "app.report_instances.status": ReportInstanceStatus,
    "app.api_rate_limits.platform": Platform,
    "app.audit_logs.action": AuditAction,
    "app.background_jobs.status": JobStatus,
}
"""Each column that one of these lists bounds."""
