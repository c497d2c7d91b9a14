"""Starts JupyterLab on the first lesson and prints the address to open. `make lab` calls it.

`python scripts/lab.py FOLDER` shows FOLDER/notebooks: the browser tests do, on copies.
"""

import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

try:
    from jupyter_server.serverapp import ServerApp
    from jupyterlab.labapp import LabApp

    from kernel_transport import kernel_settings
except ModuleNotFoundError:  # this is the machine's own Python: main() goes on in `.venv`
    ServerApp = LabApp = None

from setup_env import PYTHON, VENV

ROOT = Path(__file__).resolve().parents[1]


def options(token: str, folder: Path = ROOT) -> list[str]:
    """Settings that come before the user's own. IP and PORT are variables of `make lab`."""
    displays = ["DISPLAY", "WAYLAND_DISPLAY"]
    has_display = sys.platform in ("darwin", "win32") or any(map(os.environ.get, displays))
    settings = {
        "ServerApp.ip": os.environ.get("IP", "127.0.0.1"),
        "ServerApp.port": os.environ.get("PORT", "8888"),
        "ServerApp.open_browser": has_display,
        # Rented boxes have no other user. Windows has no such number.
        "ServerApp.allow_root": hasattr(os, "geteuid") and os.geteuid() == 0,
        "ServerApp.root_dir": folder,
        "Application.log_level": "WARN",  # the log of every request would bury the address
        "LabApp.default_url": f"/lab/tree/notebooks/{first_lesson()}",
        # Neither news nor updates are looked for. JupyterLab asks about news, in a box over the
        # lesson, whatever the server says: the settings in this folder answer.
        "LabApp.app_settings_dir": Path(__file__).resolve().with_name("lab_settings"),
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "IdentityProvider.token": token,
    }
    settings |= {f"KernelManager.{name}": value for name, value in kernel_settings().items()}
    if codespace := codespace_address("PORT"):  # what the browser calls this machine
        any_port = re.escape(codespace).replace("PORT", r"\d+")
        settings["ServerApp.allow_origin_pat"] = f"{any_port}$"
        settings["ServerApp.allow_remote_access"] = True
    return [f"--{name}={value}" for name, value in settings.items()]


def first_lesson() -> str:
    """The file whose name has the lowest number."""
    return min(path.name for path in ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"))


def codespace_address(port: int | str) -> str:
    """Where a GitHub codespace forwards this port to; empty anywhere else."""
    name = os.environ.get("CODESPACE_NAME")
    domain = os.environ.get("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN")
    return f"https://{name}-{port}.{domain}" if name and domain else ""


def print_address(server: ServerApp, token: str) -> None:
    codespace = codespace_address(server.port)
    everywhere = server.ip in ("", "*", "0.0.0.0", "::") and not codespace
    url = urlsplit(server.local_url if everywhere else server.public_url)  # ends in ?token=...
    if codespace:
        url = url._replace(scheme="https", netloc=urlsplit(codespace).netloc)
    address = url._replace(query=f"token={token}").geturl()
    print(f"\nOpen this address in a browser:\n\n    {address}\n")
    if everywhere:
        print(f"From another machine, put this one's address in place of {url.hostname}.")
    print("Press Ctrl-C twice to stop.\n", flush=True)


def in_venv() -> None:
    """Goes on in `.venv`, where `python scripts/lab.py` was given to another Python."""
    if PYTHON.exists() and not os.path.samefile(sys.prefix, VENV):
        if sys.platform != "win32":
            os.execv(PYTHON, [PYTHON, *sys.argv])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for JupyterLab, which asks first
        sys.exit(subprocess.run([PYTHON, *sys.argv]).returncode)
    if not LabApp:
        sys.exit("JupyterLab is not here yet. First run: python scripts/setup_env.py")


def main() -> None:
    in_venv()
    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    server = LabApp.initialize_server(argv=options(token, folder))
    server.io_loop.add_callback(print_address, server, token)  # once it listens
    server.start()


if __name__ == "__main__":
    main()
