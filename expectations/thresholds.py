"""Every number that a check turns on. Shares and ratios are fractions unless they say percent."""

SHARE_TOLERANCE = 1e-4
"""How far a delivered share or rate may be from its quotient: percent with two decimals, rounded,
are up to 0.00005 off."""

MAX_IDENTITY_VIOLATIONS = 0.05
"""A slice with more than this share of rows that contradict themselves is held; fewer warn."""

MAX_REJECTED_SHARE = 0.10
"""A slice that lost more than this share of its delivered rows is held; a smaller loss warns."""

MAX_COUNT = 10**12
"""No count of a week, month or quarter comes near it: what does is not a count."""

VOLUME_PERIODS = 8
"""How many periods before a slice's own its row count is compared with, by their median."""

MIN_VOLUME_RATIO = 0.5
MAX_VOLUME_RATIO = 2.0
"""Rows of a slice over that median: outside these it warns."""

WARN_DIFFERENCE_PERCENT = 0.1
FAIL_DIFFERENCE_PERCENT = 1.0
"""Source against target, slice by slice: above the first it warns, above the second it fails."""

MAX_NAMED_SLICES = 3
"""How many failing slices a message names."""

MAX_LISTED_SLICES = 50
"""How many failing slices a check's metadata lists."""
