"""The words that the tables of tenants and connected accounts take, one list each."""

from __future__ import annotations

from enum import StrEnum


class UserRole(StrEnum):
    """What a person may do in the application."""

    ADMIN = "admin"
    USER = "user"
    VIEWER = "viewer"


class SubscriptionTier(StrEnum):
    """The plan that a tenant pays for."""

    FREE = "free"
    STARTER = "starter"
    PROFESSIONAL = "professional"
    ENTERPRISE = "enterprise"


class AccountType(StrEnum):
    """Which of Amazon's services a connected account is of."""

    ADVERTISING = "advertising"
    DSP = "dsp"
    AMC = "amc"


class AccountStatus(StrEnum):
    """Where a connected account stands."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    SUSPENDED = "suspended"
    PENDING = "pending"
    DISABLED = "disabled"
    PARTIAL = "partial"
    DISCONNECTED = "disconnected"


class AccountSyncState(StrEnum):
    """What came of an account's last sync, or that one is waiting or at work."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"


class AccountSyncType(StrEnum):
    """Who asked for a sync of accounts."""

    MANUAL = "manual"
    SCHEDULED = "scheduled"
    WEBHOOK = "webhook"


class AccountSyncStatus(StrEnum):
    """What came of one attempt to sync accounts."""

    STARTED = "started"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"


class ConnectionStatus(StrEnum):
    """Whether Amazon still takes the refresh token of a connection."""

    CONNECTED = "connected"
    NEEDS_REAUTHORISATION = "needs_reauthorisation"


LISTS: dict[str, type[StrEnum]] = {
    "app.users.role": UserRole,
    "app.users.subscription_tier": SubscriptionTier,
    "app.user_accounts.account_type": AccountType,
    "app.user_accounts.status": AccountStatus,
    "app.user_accounts.sync_status": AccountSyncState,
    "app.oauth_tokens.connection_status": ConnectionStatus,
    "app.account_sync_history.sync_type": AccountSyncType,
    "app.account_sync_history.sync_status": AccountSyncStatus,
}
"""The columns with a list of their own; the database's types and CHECKs hold the same words."""
