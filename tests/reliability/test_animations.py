"""A GIF among a task's files reaches whoever watches the run, as it is."""

from pathlib import Path

import pytest
from runs_here import results, sweep_here
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslab.runs import tracking
from losslab.runs.replay import replay

pytestmark = pytest.mark.usefixtures("trusted")
GIF = "images/optimisation.gif"


def folder_of(outputs: Path) -> Path:
    (entry,) = results(outputs).cells.values()
    return outputs / str(entry["folder"])


def test_wandb_gets_it_live_and_by_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that is written while it trains has it, and so does the one that is made of the cell's folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    sweep_here(tmp_path, "task=keeping trainer.max_epochs=1 logger=wandb")
    folder = folder_of(tmp_path)
    for _ in range(2):
        (run,) = folder.glob(f"wandb/{tracking.OFFLINE}*")
        (video,) = run.glob("files/media/videos/*.gif")
        assert video.read_bytes() == (folder / GIF).read_bytes()
        tracking.supersede(run)
        (folder / tracking.COMPLETE).unlink()
        assert replay(tmp_path) == 0


def test_tensorboard_gets_it(tmp_path: Path) -> None:
    """TensorBoard shows the moving picture among the others, without a package that makes videos."""
    sweep_here(tmp_path, "task=keeping trainer.max_epochs=1 logger=tensorboard")
    events = EventAccumulator(str(folder_of(tmp_path) / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["images"]) == {"optimisation", "weights"}
    (image,) = events.Images("optimisation")
    assert image.encoded_image_string == (folder_of(tmp_path) / GIF).read_bytes()
    assert (image.width, image.height) == (4, 4)
