"""Each integration needs its own package, says so, and imports no other's."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.support import run_python

#: What each module is for.
PACKAGES = {
    "httpcore_backend": "httpcore",
    "httpx_transport": "httpx",
    "uvicorn_server": "uvicorn",
    "redis_connection": "redis",
    "mcp_transport": "mcp",
}

#: `mcp` brings a server of HTTP along.
ALONG = {"httpx_transport": {"httpcore"}, "mcp_transport": {"uvicorn"}}


@pytest.mark.parametrize(
    ("module", "package"), [*PACKAGES.items(), ("mcp_transport", "anyio")]
)
def test_without_its_package_it_says_what_to_install(module: str, package: str) -> None:
    code = """
import importlib, sys
sys.modules[sys.argv[2]] = None
try:
    importlib.import_module("umbel_plugins.integrations." + sys.argv[1])
except ImportError as error:
    print("pip install 'umbel[integrations]'" in str(error), sys.argv[2] in str(error))
"""

    assert run_python(code, module, package) == "True True\n"


@pytest.mark.slow
@pytest.mark.parametrize("module", [*PACKAGES, "managers"])
def test_it_imports_no_other_package(module: str) -> None:
    if module in PACKAGES and not find_spec(PACKAGES[module]):
        pytest.skip(f"{PACKAGES[module]} is not installed")
    code = """
import importlib, sys
importlib.import_module("umbel_plugins.integrations." + sys.argv[1])
print(*sys.modules)
"""

    imported = set(run_python(code, module).split())

    allowed = {PACKAGES.get(module)} | ALONG.get(module, set())
    assert imported & set(PACKAGES.values()) <= allowed
