"""JupyterLab's settings for `make lab`. Read in place of the user's jupyter_server_config."""

import os
import secrets
import sys
from pathlib import Path

c = get_config()  # noqa: F821 (Jupyter defines it for this file)

IP, PORT = os.environ.get("IP", "127.0.0.1"), int(os.environ.get("PORT", "8888"))
has_display = sys.platform == "darwin" or any(map(os.environ.get, ["DISPLAY", "WAYLAND_DISPLAY"]))

c.ServerApp.ip = IP
c.ServerApp.port = PORT  # where it is taken, Jupyter tries the next ones, and prints which it got
c.ServerApp.open_browser = has_display
c.ServerApp.allow_root = os.geteuid() == 0  # rental boxes have no other user
c.ServerApp.root_dir = str(Path(__file__).resolve().parents[1])
c.LabApp.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.IdentityProvider.token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
# Warnings and the address to open; the log of every request is for whoever writes JupyterLab.
c.Application.log_level = "WARN"
