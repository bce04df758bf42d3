"""Amazon's local servers in a process of their own, so that they take no time from who is measured.

Prints one JSON document with their settings and tokens, and serves until its input ends.
"""

from __future__ import annotations

import json
import sys

from tests.apis.amazon import amazon
from tests.apis.worlds import fill


def main() -> None:
    """Serve so many accounts with so many seconds of latency."""
    accounts, latency = int(sys.argv[1]), float(sys.argv[2])
    with amazon(latency) as servers:
        # One country each: Amazon shows at most 5,000 profiles of a region.
        fill(servers.world, accounts, countries_of=(("US",), ("GB",), ("JP",)))
        known = {
            "environment": servers.environment(),
            "access": servers.login.access(),
            "refresh": servers.login.grant(),
        }
        print(json.dumps(known), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
