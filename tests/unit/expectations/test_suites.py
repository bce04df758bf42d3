"""The suites as they stand: what they speak of exists, and what is measured is used."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations import profile, reconciliation
from expectations.thresholds import FAIL_DIFFERENCE_PERCENT, WARN_DIFFERENCE_PERCENT
from flows.sources.deliveries import ReportView

COUNTS = st.integers(0, 10**12)


def suites() -> dict[str, Callable[[], Any]]:
    from expectations import suites

    return {
        name: getattr(suites, name)
        for name in (
            "landed_slices",
            "landing_columns",
            "summary_against_source",
            "landed_against_log",
        )
    }


def columns(expectation: Any) -> set[str]:
    told = expectation.configuration.kwargs
    sides = (expectation.meta[side] for side in ("source", "target", "violations"))
    named = (told.get(name) for name in ("column", "column_A", "column_B"))
    return {name for name in (*named, *sides) if name}


def test_the_landed_suite_uses_every_measure_and_no_other() -> None:
    used = set().union(*map(columns, suites()["landed_slices"]().expectations))

    assert used == set(profile.MEASURES)


@pytest.mark.parametrize("name", sorted(suites()))
def test_expectations_of_one_name_are_neighbours_that_record_the_same(name: str) -> None:
    expectations = suites()[name]().expectations
    groups = [
        (check_name, list(levels))
        for check_name, levels in groupby(expectations, key=lambda each: each.meta["check_name"])
    ]

    assert len({check_name for check_name, _ in groups}) == len(groups)
    for _, levels in groups:
        assert all(each.meta == levels[0].meta for each in levels)
        assert len({each.severity for each in levels}) == len(levels)
        assert all(each.description for each in levels)


@pytest.mark.parametrize("view", ReportView)
def test_a_query_behind_a_measure_reads_only_what_it_needs(view: ReportView) -> None:
    of_register = profile.profile_query(view, ["rejected_share"]).as_string()
    of_rows = profile.profile_query(view, ["mixed_currencies"]).as_string()

    assert f"landing.sqp_{view}" not in of_register.replace('"', "")
    assert f"landing.sqp_{view}" in of_rows.replace('"', "")
    assert "click" not in of_rows


@given(source=COUNTS, target=COUNTS)
def test_a_gap_is_the_difference_in_percent_of_the_source(source: int, target: int) -> None:
    sides = (pd.Series([float(value)]) for value in (source, target, source))

    [gap] = reconciliation.gap_percent(*sides)

    assert (gap == 0) == (source == target)
    if source:
        assert gap == pytest.approx(100 * abs(target - source) / source)
    elif target:
        assert gap > FAIL_DIFFERENCE_PERCENT > WARN_DIFFERENCE_PERCENT
