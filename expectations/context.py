"""The Great Expectations context: in memory, with the suites of `suites.py` as they stand in code.

Nothing is written to a folder, nothing is sent anywhere, and no datasource holds a login: the
batches are frames that `profile.py` and `reconciliation.py` have read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import great_expectations as gx
import psycopg
from great_expectations.data_context.types.base import ProgressBarsConfig

from expectations.actions import RecordChecks, Recorded
from expectations.batches import Batch


def run_suite(
    suite: gx.ExpectationSuite, batches: Iterable[Batch], connection: psycopg.Connection[Any]
) -> list[Recorded]:
    """Validate each batch against the suite and record the results, without committing.

    Raises:
        WarehouseError: if an expectation could not be evaluated: it says nothing about the data.
    """
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    frames = context.data_sources.add_pandas("warehouse").add_dataframe_asset(suite.name)
    validation = context.validation_definitions.add_or_update(
        gx.ValidationDefinition(
            name=suite.name,
            data=frames.add_batch_definition_whole_dataframe("whole"),
            suite=context.suites.add_or_update(suite),
        )
    )
    recorded: list[Recorded] = []
    for number, batch in enumerate(batches):
        checkpoint = gx.Checkpoint(
            name=f"{suite.name} {number}",
            validation_definitions=[validation],
            actions=[RecordChecks.of(connection, batch, recorded)],
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": batch.index_columns,
                "include_unexpected_rows": False,
            },
        )
        checkpoint.run(batch_parameters={"dataframe": batch.frame})
    return recorded
