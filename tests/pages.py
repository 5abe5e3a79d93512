"""Pages as a browser makes them: headless Chromium, where there is one."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def browse(path: Path, state: str = "", budget_ms: int = 300) -> tuple[str, str]:
    """The document after its script has run, and what the browser wrote to its log."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--virtual-time-budget={budget_ms}"]
    command += ["--enable-logging=stderr", "--v=0", "--dump-dom", path.as_uri() + state]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


def body_rows(document: str) -> list[str]:
    """Names of the runs in the table, from the top."""
    return [html.unescape(name) for name in re.findall(r'<tr class="run".*?<button [^>]*>(.*?)</button>', document)]


def page_data(path: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])
