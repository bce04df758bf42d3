"""The words that the tables of Amazon Marketing Cloud take, one list each."""

from __future__ import annotations

from enum import StrEnum


class ApiRegion(StrEnum):
    """Which host of the Advertising API answers."""

    NORTH_AMERICA = "NA"
    EUROPE = "EU"
    FAR_EAST = "FE"


class InstanceStatus(StrEnum):
    """Where an instance stands."""

    PENDING = "pending"
    ACTIVE = "active"
    FAILED = "failed"
    DISCONNECTED = "disconnected"
    UNKNOWN = "unknown"


class WorkflowStatus(StrEnum):
    """Whether a workflow is being written, in use or put away."""

    DRAFT = "draft"
    ACTIVE = "active"
    ARCHIVED = "archived"


class ExecutionStatus(StrEnum):
    """Where an execution stands; the first five are Amazon's."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


LISTS: dict[str, type[StrEnum]] = {
    "app.amc_accounts.region": ApiRegion,
    "app.amc_instances.region": ApiRegion,
    "app.amc_instances.status": InstanceStatus,
    "app.workflows.status": WorkflowStatus,
    "app.workflow_executions.status": ExecutionStatus,
}
"""The columns with a list of their own; the database's CHECKs hold the same words."""
