"""Hydra's way to our sweeps: hydra/launcher=serial and hydra/launcher=parallel. Hydra loads plugins from here only."""

from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from losslab.config import modules, plain
from losslab.runs.command import UsageError, run_sweep
from losslab.runs.crews import Crew, OneByOne, Processes
from losslab.runs.plan import Request


class SerialLauncher(Launcher):
    """One cell after the other, in this process."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composes the cells' configs."""
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose all configs, then run the sweep: what is edited from here on changes no cell."""
        if self.config.hydra.sweeper.get("max_batch_size") is not None:
            hint = "hydra/launcher=parallel hydra.launcher.n_jobs=2 limits the cells at a time"
            raise UsageError(f"a sweep is planned as a whole, so leave hydra.sweeper.max_batch_size out: {hint}")
        setup_globals()
        scores = run_sweep([self._request(list(words)) for words in job_overrides], self._crew_of)
        return [_returned(words, score) for words, score in zip(job_overrides, scores, strict=True)]

    def _crew_of(self, requests: Sequence[Request]) -> Crew:
        return OneByOne()

    def _request(self, words: list[str]) -> Request:
        try:
            config = self.context.config_loader.load_sweep_config(self.config, words)
            HydraConfig.instance().set_config(config)
            choices = dict(config.hydra.runtime.choices)
            with open_dict(config):
                del config["hydra"]
            return Request(plain(config), choices, tuple(words))
        except (HydraException, OmegaConfBaseException) as error:
            return Request({}, {}, tuple(words), error)


class ParallelLauncher(SerialLauncher):
    """A process a cell, so many at a time.

    Args:
        n_jobs: cells at a time; None is one a GPU, or two where there is none.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        """Keep the number."""
        self.n_jobs = n_jobs

    def _crew_of(self, requests: Sequence[Request]) -> Crew:
        if self.n_jobs is not None and (not isinstance(self.n_jobs, int) or self.n_jobs < 1):
            raise UsageError(f"hydra.launcher.n_jobs is a number of cells at a time, got {self.n_jobs!r}")
        return Processes(self.n_jobs, sorted({module for request in requests for module in modules(request.settings)}))


def _returned(words: Sequence[str], score: float) -> JobReturn:
    """Give the score to the sweeper; a cell that has none is in the table and the exit code."""
    return JobReturn(overrides=words, status=JobStatus.COMPLETED, _return_value=score)
