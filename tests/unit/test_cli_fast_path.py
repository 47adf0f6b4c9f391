"""`flexai run` starts at once: its path imports the standard library and little of ours."""

import json
import subprocess
import sys

PROGRAM = """
import json, sys
from flexai.apps.cli.entry import main
code = main(["run", "--run-dir", sys.argv[1], "--", "true"])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules} | set(sys.modules))]))
"""
HEAVY = {"rich", "httpx", "pydantic", "typer", "fastapi", "numpy", "yaml", "uvicorn", "click", "argparse", "asyncio"}
HEAVY |= {"email.parser", "ssl", "http.client", "flexai.model", "dataclasses", "inspect", "ctypes"}


def test_run_imports_none_of_the_heavy_packages(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    code, modules = json.loads(result.stdout)
    assert code == 125  # nobody answers, which is known only after everything was imported
    assert "no pool answers" in result.stderr
    assert not HEAVY & set(modules)
    assert "flexai" in modules
