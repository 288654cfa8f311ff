"""`python -m ui --port 8501`: serves the portal with every flag it needs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'


def flags(port: int, address: str) -> dict[str, Any]:
    """Streamlit options: no statistics, no file watching, no invitation to deploy, our two themes with system fonts."""
    return {
        "server.port": port,
        "server.address": address,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.showEmailPrompt": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "type",
        "client.showErrorLinks": "false",
        "runner.magicEnabled": False,
        "theme.font": FONT,
        "theme.headingFont": FONT,
        "theme.baseRadius": "medium",
        "theme.light.primaryColor": "#1f6a8c",
        "theme.light.linkColor": "#1f6a8c",
        "theme.light.backgroundColor": "#ffffff",
        "theme.light.secondaryBackgroundColor": "#f1f4f6",
        "theme.light.textColor": "#1d2730",
        "theme.dark.primaryColor": "#6db9d8",
        "theme.dark.linkColor": "#6db9d8",
        "theme.dark.backgroundColor": "#14181d",
        "theme.dark.secondaryBackgroundColor": "#20262d",
        "theme.dark.textColor": "#eef2f5",
    }


def serve(port: int, address: str = "127.0.0.1") -> None:
    """Serve the portal until a signal ends it."""
    from streamlit.web import bootstrap

    from infra import wiring  # noqa: F401  # seconds of imports, better before the first visitor than during the visit
    from ui.views import now  # noqa: F401

    options = {name.replace(".", "_"): value for name, value in flags(port, address).items()}
    bootstrap.load_config_options(flag_options=options)
    bootstrap.run(str(Path(__file__).with_name("app.py")), False, [], options)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m ui", description=__doc__)
    parser.add_argument("--port", type=int, default=8501, help="TCP port")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    chosen = parser.parse_args()
    serve(chosen.port, chosen.address)


if __name__ == "__main__":
    main()
