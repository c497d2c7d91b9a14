"""Starts JupyterLab on the first lesson and prints the address to open. `make lab` calls it.

`python scripts/lab.py FOLDER` shows FOLDER/notebooks. The browser tests use it to show copies.
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

    from kernel_transport import kernel_settings, model_for_kernels
except ModuleNotFoundError:  # this is the machine's own Python: main() starts the one in `.venv`
    ServerApp = LabApp = None

from setup_env import PYTHON, VENV

ROOT = Path(__file__).resolve().parents[1]


def options(token: str, folder: Path = ROOT) -> list[str]:
    """Settings that override the user's own. IP and PORT are variables of `make lab`."""
    displays = ["DISPLAY", "WAYLAND_DISPLAY"]
    has_display = sys.platform in ("darwin", "win32") or any(map(os.environ.get, displays))
    settings = {
        "ServerApp.ip": os.environ.get("IP", "127.0.0.1"),
        "ServerApp.port": os.environ.get("PORT", "8888"),
        "ServerApp.open_browser": has_display,
        # On rented boxes root is often the only user. Windows has no user ids.
        "ServerApp.allow_root": hasattr(os, "geteuid") and os.geteuid() == 0,
        "ServerApp.root_dir": folder,
        "Application.log_level": "WARN",  # the log of every request would bury the address
        "LabApp.default_url": f"/lab/tree/notebooks/{first_lesson()}",
        # No search for news or updates. JupyterLab would still ask about news, in a box over the
        # lesson, so the settings in this folder answer that question.
        "LabApp.app_settings_dir": Path(__file__).resolve().with_name("lab_settings"),
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "IdentityProvider.token": token,
    }
    settings |= {f"KernelManager.{name}": value for name, value in kernel_settings().items()}
    if codespace := codespace_address("PORT"):  # the address of this machine in the browser
        any_port = re.escape(codespace).replace("PORT", r"\d+")
        settings["ServerApp.allow_origin_pat"] = f"{any_port}$"
        settings["ServerApp.allow_remote_access"] = True
    return [f"--{name}={value}" for name, value in settings.items()]


def first_lesson() -> str:
    """The file whose name has the lowest number."""
    return min(path.name for path in ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"))


def codespace_address(port: int | str) -> str:
    """The address that a GitHub codespace gives to this port; empty anywhere else."""
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
        print(f"From another machine, use the address of this machine instead of {url.hostname}.")
    print("Press Ctrl-C twice to stop.\n", flush=True)


def in_venv() -> None:
    """Starts this script again with the Python of `.venv`, unless it runs there already."""
    if PYTHON.exists() and not os.path.samefile(sys.prefix, VENV):
        if sys.platform != "win32":
            os.execv(PYTHON, [PYTHON, *sys.argv])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for JupyterLab, which asks first
        sys.exit(subprocess.run([PYTHON, *sys.argv]).returncode)
    if not LabApp:
        sys.exit("JupyterLab is not installed yet. First run: python scripts/setup_env.py")


def main() -> None:
    in_venv()
    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    # torch's threads wait asleep, not busily: beside other work they lose much less time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["TUTORIAL_MODEL"] = model_for_kernels(os.environ.get("TUTORIAL_MODEL", ""))
    server = LabApp.initialize_server(argv=options(token, folder))
    server.io_loop.add_callback(print_address, server, token)  # once it listens
    server.start()


if __name__ == "__main__":
    main()
