"""What `prefect.yaml` deploys, on a real Prefect server with a real worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import automations
from flows.alerts import AlertThresholds
from flows.serve import Served, serving
from flows.settings import PROJECT_ROOT, Connection
from flows.sources.sample import write_sample
from tests.conftest import RunCli, cloned_database
from tests.integration.test_alerts import fired

LIMITS = AlertThresholds(
    failures_in_a_row=2,
    run_limit=timedelta(minutes=15),
    late_after=timedelta(seconds=10),
    silent_after=timedelta(seconds=45),
)


@pytest.fixture(scope="module")
def warehouse(
    server: Connection, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    """One database for all of these tests, in which the flows of the worker work as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_HOME", str(tmp_path_factory.mktemp("home") / ".warehouse"))
        name = f"wh_deployments_{os.getpid()}"
        with cloned_database(server, template, name, patch) as connection:
            yield connection


@pytest.fixture(scope="module")
def served(warehouse: Connection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    said: list[str] = []
    home = tmp_path_factory.mktemp("prefect")
    without = {"BIGQUERY_PROJECT": "", "AMAZON_CLIENT_ID": ""}
    with serving(said.append, home=home, extra=without) as up:
        assert any("BIGQUERY_PROJECT" in line for line in said), said
        with temporary_settings({PREFECT_API_URL: up.api_url}):
            automations.install(automations.definitions(LIMITS))
            yield up


@pytest.fixture
def client(served: Served) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def deployment(client: SyncPrefectClient, name: str) -> UUID:
    return client.read_deployment_by_name(name).id


def start(client: SyncPrefectClient, name: str, **parameters: Any) -> UUID:
    """A run of a deployment, which is not tried again when it fails."""
    found = client.read_deployment_by_name(name)
    environment = dict(found.job_variables["env"]) | {"PREFECT_FLOWS_DEFAULT_RETRIES": "0"}
    return client.create_flow_run_from_deployment(
        found.id, parameters=parameters, job_variables={"env": environment}
    ).id


def wait_for(
    client: SyncPrefectClient, run: UUID, there: Callable[[FlowRun], bool], seconds: float = 180
) -> FlowRun:
    """The run, once it is as wanted."""
    gives_up = time.monotonic() + seconds
    while True:
        found = client.read_flow_run(run)
        if there(found):
            return found
        if time.monotonic() > gives_up:
            pytest.fail(f"{found.name} is still {found.state}")
        time.sleep(0.5)


def is_over(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def artifacts(client: SyncPrefectClient, run: UUID) -> dict[str, Artifact]:
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    )
    return {str(artifact.key): artifact for artifact in found}


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text("ascii")
    return [int(child) for child in listed.split()]


def descendants(process: int) -> list[int]:
    below = children(process)
    return [*below, *(each for child in below for each in descendants(child))]


def test_everything_is_deployed_as_it_is_written(client: SyncPrefectClient) -> None:
    written = yaml.safe_load((PROJECT_ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    deployed = client.read_deployments()
    assert len(deployed) == len(written) == 7
    crons = {
        tuple(found.tags): found.schedules[0].schedule.cron  # type: ignore[union-attr]
        for found in deployed
        if found.schedules
    }
    assert crons[("sqp", "bigquery", "nightly")] == "0 2 * * *"
    assert crons[("quality", "nightly")] == "0 3 * * *"
    assert all(found.global_concurrency_limit.limit == 1 for found in deployed)
    active = {
        tuple(found.tags): all(schedule.active for schedule in found.schedules)
        for found in deployed
        if found.schedules
    }
    paused = {tags for tags, is_active in active.items() if not is_active}
    assert paused == {tags for tags in active if {"bigquery", "amazon"} & set(tags)}, (
        "what cannot run here is paused, and nothing else"
    )


def test_a_run_by_hand_loads_files_and_tells_what_changed(
    client: SyncPrefectClient, warehouse: Connection, tmp_path: Path
) -> None:
    write_sample(tmp_path / "sample", asins=2, weeks=3, queries=12, seed=3)
    run = wait_for(
        client, start(client, "sync-sqp/files", paths=[str(tmp_path / "sample")]), is_over
    )
    assert run.state is not None
    assert run.state.is_completed(), run.state
    left = artifacts(client, run.id)
    assert set(left) == {"sync-sqp-verdict", "sync-sqp-changes", "sync-sqp-progress"}
    assert left["sync-sqp-progress"].data == 100
    assert run.state.message in str(left["sync-sqp-verdict"].data).replace("\\", "")
    with psycopg.connect(**warehouse.libpq()) as session:
        row = session.execute("select count(*) from sqp.weekly_summary").fetchone()
        assert row
        assert row[0] > 0
        inserted = session.execute(
            "select records_inserted from sqp.sync_log where sync_type = 'weekly'"
        ).fetchall()
    assert f'"new": {inserted[0][0]}' in str(left["sync-sqp-changes"].data)


def test_the_nightly_check_judges_all_that_is_loaded(
    client: SyncPrefectClient, warehouse: Connection, tmp_path: Path
) -> None:
    site = str(tmp_path / "site")
    run = wait_for(client, start(client, "check-quality/nightly", site=site), is_over)
    assert run.state is not None
    assert run.state.is_completed(), run.state
    assert "0 failed" in str(run.state.message)
    with psycopg.connect(**warehouse.libpq(), autocommit=True) as session:
        session.execute("update sqp.monthly_summary set total_impressions = total_impressions + 1")
    assert "html" in (tmp_path / "site" / "quality.html").read_text("utf-8")
    run = wait_for(client, start(client, "check-quality/nightly", site=None), is_over)
    assert run.state is not None
    assert run.state.is_failed(), run.state
    with psycopg.connect(**warehouse.libpq(), autocommit=True) as session:
        session.execute("update sqp.monthly_summary set total_impressions = total_impressions - 1")
    verdict = str(artifacts(client, run.id)["check-quality-verdict"].data).replace("\\", "")
    assert "monthly_summary_sums_weeks" in verdict
    with psycopg.connect(**warehouse.libpq()) as session:
        rows = session.execute(
            "select check_status from sqp.data_quality_checks"
            " where check_name = 'assert_monthly_summary_sums_weeks' order by id"
        ).fetchall()
    assert [row[0] for row in rows][-2:] == ["passed", "failed"]


def test_a_schedule_starts_runs_by_itself(client: SyncPrefectClient) -> None:
    nightly = deployment(client, "keep-tables/nightly")
    every = IntervalSchedule(interval=timedelta(seconds=20))
    [schedule] = client.create_deployment_schedules(nightly, [(every, True)])
    try:
        gives_up = time.monotonic() + 120
        completed: list[FlowRun] = []
        while not completed and time.monotonic() < gives_up:
            runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    deployment_id=FlowRunFilterDeploymentId(any_=[nightly])
                )
            )
            completed = [
                run for run in runs if run.auto_scheduled and run.state_name == "Completed"
            ]
            time.sleep(1)
        assert completed, [(run.name, run.expected_start_time, run.state_name) for run in runs]
    finally:
        client.delete_deployment_schedule(nightly, schedule.id)


def test_failing_runs_fire_their_automation(client: SyncPrefectClient) -> None:
    for _ in range(2):
        run = wait_for(client, start(client, "sync-sqp/files", paths=["/no/delivery"]), is_over)
        assert run.state is not None
        assert run.state.is_failed(), run.state
    verdict = str(artifacts(client, run.id)["sync-sqp-verdict"].data)
    assert "next: check the path" in verdict
    assert (automations.FAILED_IN_A_ROW, "warehouse.flow.sync-sqp") in fired(
        {automations.FAILED_IN_A_ROW}, 60
    )


def test_a_run_whose_machine_is_gone_is_closed_and_taken_up(
    client: SyncPrefectClient,
    served: Served,
    warehouse: Connection,
    tmp_path: Path,
    run_cli: RunCli,
) -> None:
    write_sample(tmp_path / "more", asins=2, weeks=4, queries=12, seed=4)
    files = [str(tmp_path / "more")]
    with psycopg.connect(**warehouse.libpq()) as in_the_way:
        in_the_way.execute("lock table landing.sqp_slices in access exclusive mode")
        run = start(client, "sync-sqp/files", paths=files)
        wait_for(client, run, lambda found: found.state_name == "Running")
        for process in (served.worker.pid, *descendants(served.worker.pid)):
            os.kill(process, signal.SIGKILL)
        gone = wait_for(client, run, is_over)
    assert gone.state is not None
    assert gone.state.is_crashed(), gone.state
    assert "no sign of life" in str(gone.state.message)
    again = run_cli("sync-sqp", *files, env={"PREFECT_API_URL": served.api_url})
    assert again.returncode == 0, again.stderr

    late = start(client, "keep-tables/nightly")
    waiting = (automations.LATE_RUN, f"prefect.flow-run.{late}")
    assert waiting in fired({automations.LATE_RUN, automations.ZOMBIE_RUN}, 120)


def test_serve_prints_where_it_is_and_an_interrupt_ends_all_of_it(
    database: Connection,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "serve"],
        cwd=PROJECT_ROOT,
        env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        see_it_serve_and_end(process)
    finally:
        process.terminate()
        process.wait(90)


def see_it_serve_and_end(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    url = ""
    for line in process.stdout:
        url = next(
            (word for word in line.split() if word.startswith("http") and word.endswith("/api")),
            url,
        )
        if "Ctrl-C" in line:
            break
    assert url, process.poll()
    started = descendants(process.pid)
    assert len(started) >= 2
    with urllib.request.urlopen(f"{url}/health") as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/health")
    assert not any(Path(f"/proc/{child}").exists() for child in started)
