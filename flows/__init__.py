"""The entry points that act: flows, the service around them, and the `twin` command."""

import os

# Prefect reports usage to its makers unless told otherwise; an operator may say otherwise.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
