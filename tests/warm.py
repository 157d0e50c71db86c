"""Commands for tests from a process that has imported what they need: seconds less each, and else as a user's.

Run as a program, this file waits for commands on its input and forks a process for each. That process begins the script
with arguments, folder, environment, streams and random numbers of its own, and ends as any other.
"""

import gc
import json
import os
import random
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

IMPORTS = ("hydra._internal.hydra", "matplotlib.pyplot", "pandas", "pyarrow.parquet", "torchvision",
           "losslab.data.photos", "losslab.losses.deep", "losslab.runs.attempt", "losslab.runs.command",
           "losslab.runs.training", "losslab.tasks.glo")  # fmt: skip
"""What costs a command its first seconds."""


class Warm:
    """Such a process, which imports while others work, and its commands, one at a time."""

    def __init__(self, env: dict[str, str]) -> None:
        self._server = subprocess.Popen([sys.executable, __file__], env=env, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, start_new_session=True, text=True)  # fmt: skip

    def run(
        self, command: list[str], cwd: Path, env: dict[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Do what subprocess.run does, for a command that begins with Python and a script."""
        assert command[0] == sys.executable
        with tempfile.TemporaryDirectory() as folder:
            streams = [str(Path(folder) / name) for name in ("out", "err")]
            asked = {"argv": command[1:], "cwd": str(cwd), "env": env, "streams": streams}
            code = self._answer(json.dumps(asked), timeout)
            out, err = (Path(stream).read_text(encoding="utf-8") for stream in streams)
        return subprocess.CompletedProcess(command, code, out, err)

    def _answer(self, line: str, timeout: float) -> int:
        server = self._server
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(f"{line}\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], timeout)[0]:
            os.killpg(server.pid, signal.SIGKILL)  # the command, and with it all that would follow
            raise subprocess.TimeoutExpired(line, timeout)
        return int(server.stdout.readline())

    def close(self) -> None:
        """End the process: it has no more input."""
        self._server.communicate(timeout=60)


def next_command() -> dict[str, Any] | None:
    """Fork for each command; give it in the new process, and nothing in the old one when there are no more."""
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            asked: dict[str, Any] = json.loads(line)
            return asked
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def become(asked: dict[str, Any]) -> str:
    """Take over what a new process would begin with, and give the script."""
    import numpy as np

    for number, (place, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), *((place, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for place in asked["streams"])]
    ):
        os.dup2(os.open(place, flags), number)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    random.seed()  # what a command forgets to seed differs from one to the next
    np.random.seed()
    script, *_ = sys.argv = asked["argv"]
    found = asked["env"].get("PYTHONPATH", "")
    sys.path[:1] = [str(Path(script).parent), *filter(None, found.split(os.pathsep))]
    return script


if __name__ == "__main__":
    sys.path.insert(1, str(Path(__file__).parents[1] / "src"))
    for name in IMPORTS:
        __import__(name)
    gc.collect()
    gc.freeze()  # a new process that counts references in what it shares would copy it all
    asked_for = next_command()
    if asked_for is not None:
        runpy.run_path(become(asked_for), run_name="__main__")
