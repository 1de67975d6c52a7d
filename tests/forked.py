"""run.py without seconds of imports: forks of a server that has imported torch and Lightning, and has run nothing.

A fork has its own arguments, environment, folder, output and signals, as a process that a shell starts.
"""

import contextlib
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
# A fork has the imports already; its own programs are forks of it.
CONTEXT = multiprocessing.get_context("fork" if multiprocessing.parent_process() else "forkserver")
multiprocessing.set_forkserver_preload(
    ["clip.cli.commands", "clip.cli.tools", "clip.experiments.run_once", "clip.experiments.runner",
     "clip.evaluation.costs", "clip.inference.predict", "clip.inference.web"]
)  # fmt: skip


class Fork:
    """A started program, with the part of subprocess.Popen that tests need."""

    def __init__(self, process: BaseProcess, output: TemporaryDirectory):
        self.process, self.output, self.pid = process, output, process.pid

    def poll(self) -> int | None:
        """Return the exit code; None while the program runs."""
        return self.process.exitcode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()

    def read(self, name: str) -> str:
        """Return what the program has written to "stdout" or "stderr" so far."""
        return Path(self.output.name, name).read_text()

    def wait(self, timeout: float = 300) -> CompletedProcess[str]:
        """Return the exit code and the output of the program once it has ended; kill it after the timeout."""
        self.process.join(timeout)
        if self.poll() is None:
            self.process.kill()
            raise TimeoutExpired(self.process.name, timeout)
        return CompletedProcess([], self.poll(), self.read("stdout"), self.read("stderr"))


def main(path: Path, words: list[str], cwd: Path, env: Mapping[str, str], output: Path, before: Callable) -> None:
    """Run a program as the interpreter does; multiprocessing turns SystemExit into an exit code."""
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    before()
    sys.argv = [str(path), *words]
    runpy.run_path(str(path), run_name="__main__")


def start(
    *words: object,
    program: str | Path = "run.py",
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    before: Callable[[], object] = int,
) -> Fork:
    """Start a program of the project with changes of the environment; its process calls ``before`` first."""
    output = TemporaryDirectory()
    for name in ("stdout", "stderr"):
        Path(output.name, name).touch()
    arguments = ROOT / program, [*map(str, words)], cwd, dict(os.environ | (env or {})), Path(output.name), before
    process = CONTEXT.Process(target=main, args=arguments, name=str(program))
    with contextlib.chdir(ROOT):  # where the server finds the modules that it imports
        process.start()
    return Fork(process, output)
