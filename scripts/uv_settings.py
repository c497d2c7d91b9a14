"""Translates the user's settings for pip into settings for uv. Used by setup_env.py."""

import ast
import os
import re

# What is set for uv itself stays. What is not here, or uv cannot do, pip does: it tries after uv.
VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cache-dir": "UV_CACHE_DIR",
    "no-cache-dir": "UV_NO_CACHE",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
}


def as_pip_would(pip_config: str) -> tuple[list[str], dict[str, str]]:
    """The arguments and environment variables for uv, from what `pip config list` prints."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    settings = {"cert": bundle} if bundle else {}  # pip reads these two as well
    for section in ("global", "install", ":env:"):  # the last one wins
        for name, value in re.findall(rf"^{section}\.([\w-]+)=(.+)$", pip_config, re.MULTILINE):
            if words := ast.literal_eval(value).split():
                settings[name] = " ".join(map(os.path.expanduser, words))
    found = {VARIABLES[name]: value for name, value in settings.items() if name in VARIABLES}
    if "find-links" in settings:  # uv separates this list by commas
        found["UV_FIND_LINKS"] = settings["find-links"].replace(" ", ",")
    if "cache-dir" in settings:  # in a folder of its own beside pip's files
        found["UV_CACHE_DIR"] = os.path.join(settings["cache-dir"], "uv")
    if "proxy" in settings:
        found |= dict.fromkeys(["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"], settings["proxy"])
    found = {n: v for n, v in found.items() if not (n.startswith("UV_") and n in os.environ)}
    constraint = os.environ.get("UV_CONSTRAINT") or found.get("UV_CONSTRAINT", "")
    found["UV_CONSTRAINT"] = f"{constraint} .venv/constraints.txt"
    # As pip does, look in all indexes for each package and take the newest version that fits.
    command = ["pip", "install", "--index-strategy", "unsafe-best-match"]
    if settings.get("no-index", "no").lower() in ("1", "on", "true", "yes"):
        command += ["--no-index"]
    return command, found
