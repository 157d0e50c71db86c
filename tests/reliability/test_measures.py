"""Measures: finished cells are measured by further losses, once, and whatever fails harms only itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs_here import request_of, results, run_command, scores, sweep_here
from stand_ins import Keeping

from losslab.config import build, load, plain
from losslab.runs import read_results
from losslab.runs.command import UsageError, codes, run_sweep
from losslab.runs.crews import OneByOne
from losslab.runs.journal import Journal
from losslab.runs.manifest import sweep_id
from losslab.runs.matrix import matrices_of, mixed
from losslab.runs.measures import measures_of
from losslab.runs.plan import make_plan
from losslab.runs.results import latest
from losslab.runs.states import Outcome

pytestmark = pytest.mark.usefixtures("trusted")

KEEPING = "task=keeping trainer.max_epochs=1"


def measured(outputs: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """Give start and end by the cell's label and the measure's name."""
    entries = latest(results(outputs))
    return {
        (entry["label"], name): (found["start"], found["end"])
        for entry in entries
        for name, found in entry.get("measures", {}).items()
    }


def stored(outputs: Path, label: str) -> Path:
    (path,) = (outputs / "keeping").glob(f"{label}-*/images.npz")
    return path


def test_each_done_cell_gets_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of now and of before are measured, once each, and nothing is optimised again."""
    sweep_here(tmp_path, f"{KEEPING} seed=0")
    found = scores(tmp_path)
    sweep_here(tmp_path, *(f"{KEEPING} seed={seed} measures=[l2,l1]" for seed in (0, 1)))
    labels = [entry["label"] for entry in results(tmp_path).cells.values()]
    assert set(measured(tmp_path)) == {(label, name) for label in labels for name in ("l2", "l1")}
    assert scores(tmp_path).items() >= found.items()
    for (label, name), (start, end) in measured(tmp_path).items():
        kept = np.load(stored(tmp_path, label))
        loss = build(plain(load(f"loss={name}"))["loss"])
        told = {key: loss(*(torch.from_numpy(kept[one]) for one in (key, "seen"))).mean() for key in ("start", "end")}
        assert (start, end) == pytest.approx((float(told["start"]), float(told["end"])), rel=1e-6)
        assert start != end
    before = (tmp_path / "journal.jsonl").read_bytes()
    monkeypatch.setattr(Keeping, "measure", staticmethod(lambda stored, loss: {}))
    sweep_here(tmp_path, *(f"{KEEPING} seed={seed} measures=[l1,l2]" for seed in (0, 1)))
    assert codes == []
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_measures_are_no_part_of_a_cell_or_a_sweep(tmp_path: Path) -> None:
    """The same cells in the same sweep, whatever they are measured by."""
    requests = [request_of(tmp_path, *KEEPING.split(), *more) for more in ([], ["measures=[l1]"])]
    assert make_plan(requests[0]).cell == make_plan(requests[1]).cell
    assert sweep_id(requests[:1]) == sweep_id(requests[1:])


def test_a_measure_is_what_its_words_alone_would_be(tmp_path: Path) -> None:
    """The command's network, weights and layer are those of its own loss; the cell's seed is the measure's too."""
    words = ["network=cnn2", "weights=random_conv2d", "layer=conv1", "loss=deep", "seed=7"]
    own = "deep network=cnn1 layer=conv1"
    request = request_of(tmp_path, *KEEPING.split(), *words, f'measures=[deep,"{own}","deep seed=3","loss=l2"]')
    found = {measure.name: measure.loss for measure in measures_of(request)}
    assert list(found) == ["deep", own, "deep seed=3", "l2"]
    for name, loss in found.items():
        seed = [] if "seed=" in name else ["seed=7"]
        assert loss == plain(load(*f"loss={name}".split(), *seed))["loss"], name
    assert found["deep"] != request.settings["loss"]
    seven = replace(request, settings={"seed": 7, "measures": ["lp loss.p=${seed}", "lp loss.p=${seed} seed=3"]})
    assert [measure.loss["p"] for measure in measures_of(seven)] == [7, 3]
    assert len({measure.alike for measure in measures_of(seven)}) == 2
    eight = replace(seven, settings={**seven.settings, "seed": 8})
    assert [measure.alike for measure in measures_of(eight)] == [measure.alike for measure in measures_of(seven)]


def test_a_result_counts_for_one_file_and_one_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another name for the same loss costs nothing; other images or another config of the loss are measured anew."""
    calls: list[Any] = []
    ours = Keeping.measure

    def counting(path: Path, loss: Any) -> dict[str, float]:
        assert not torch.is_grad_enabled()
        calls.append(loss)
        return ours(path, loss)

    monkeypatch.setattr(Keeping, "measure", staticmethod(counting))
    sweep_here(tmp_path, f"{KEEPING} measures=[lp]")
    assert len(calls) == 1
    request = request_of(tmp_path, *KEEPING.split(), 'measures=["lp loss.p=1","lp loss.p=1.0",lp]')
    run_sweep([request], lambda _: OneByOne())
    assert len(calls) == 2
    assert {name for _, name in measured(tmp_path)} == {"lp", "lp loss.p=1", "lp loss.p=1.0"}
    path = stored(tmp_path, "l2-seed0")
    kept = dict(np.load(path))
    np.savez(path, **{**kept, "end": kept["seen"]})
    run_sweep([request], lambda _: OneByOne())
    assert len(calls) == 4
    assert {end for _, end in measured(tmp_path).values()} == {0.0}


def test_numbers_of_an_earlier_result_are_not_shown(tmp_path: Path) -> None:
    """A cell that was computed again has no measures until it is measured again, which an equal file spares it."""
    sweep_here(tmp_path, f"{KEEPING} measures=[l2]")
    before = measured(tmp_path)
    sweep_here(tmp_path, f"{KEEPING} force=true")
    assert measured(tmp_path) == {}
    sweep_here(tmp_path, f"{KEEPING} measures=[l2]")
    assert measured(tmp_path) == before != {}


def test_a_measure_that_fails_harms_only_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too small an image, a NaN and a missing file are told by cell and measure; the exit code is 1."""
    sweep_here(tmp_path, *(f"{KEEPING} seed={seed}" for seed in (0, 1)))
    stored(tmp_path, "l2-seed1").unlink()
    cells = [f"{KEEPING} seed={seed} measures=[ssim,l2]" for seed in (0, 1, 2)]
    sweep_here(tmp_path, *cells)
    assert {name for _, name in measured(tmp_path)} == {"l2"}
    assert len(measured(tmp_path)) == 2
    assert codes == [1, 1, 1]
    shown, told = capsys.readouterr()
    assert told.count("measured by ssim: ssim needs images of at least 11×11 pixels, got 8×8\n") == 2
    assert "can't be measured: it holds no images.npz; force=true computes it again" in told
    assert "3 done of 3 cells" in shown
    assert "measure ssim stopped" in next(tmp_path.glob("keeping/l2-seed2-*/log.txt")).read_text()
    nan = {"start": 1.0, "end": float("nan")}
    monkeypatch.setattr(Keeping, "measure", staticmethod(lambda stored, loss: nan))
    sweep_here(tmp_path, f"{KEEPING} seed=0 measures=[l1,l2]")
    assert "measured by l1: the distance at the end is nan" in capsys.readouterr().err
    assert codes == [1]
    assert len(measured(tmp_path)) == 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("[l2,mmdp]", "measure 'mmdp': there is no loss=mmdp; did you mean mmdpp?"),
        ('["deep layer=relu9_1"]', "measure 'deep layer=relu9_1': unknown layer 'relu9_1' of vgg16; did you mean"),
        ('["laplacian loss.level=2"]', "there is no key 'loss.level'; did you mean loss.levels?"),
        ('["mmdp loss.level=2"]', "there is no loss=mmdp; did you mean mmdpp?"),
        ('["deep layer=each"]', "measure 'deep layer=each' is a panel of several losses"),
        ("[3]", "measures is a list of losses, such as"),
    ],
)
def test_what_names_no_loss_is_refused_at_once(tmp_path: Path, asked: str, said: str) -> None:
    """Before anything is computed or written, with the nearest valid name."""
    request = request_of(tmp_path, *KEEPING.split(), f"measures={asked}")
    with pytest.raises(ValueError, match="measure") as caught:
        measures_of(request)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_tasks_that_keep_nothing_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If no cell can be measured, at once; if some can, at the end."""
    with pytest.raises(UsageError, match="for tasks that keep their images; task=stand_in can't be measured"):
        sweep_here(tmp_path, "measures=[l2]")
    assert not (tmp_path / "journal.jsonl").exists()
    sweep_here(tmp_path, "trainer.max_epochs=1 measures=[l2]", f"{KEEPING} measures=[l2]")
    assert "task=stand_in can't be measured" in capsys.readouterr().err
    assert codes == [1]
    assert len(measured(tmp_path)) == 1


def test_each_cell_has_its_own_measures(tmp_path: Path) -> None:
    """Configs that mean one cell share what they ask for, and other cells don't get it."""
    cells = [f"{KEEPING} seed={seed} measures=[{name}]" for seed, name in ((0, "l2"), (0, "l1"), (1, "l2"))]
    sweep_here(tmp_path, *cells)
    assert sorted(name for _, name in measured(tmp_path)) == ["l1", "l2", "l2"]


def test_columns_and_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results and the sweep's table have start and end; configs that differ are not compared in silence."""
    sweep_here(tmp_path, *(f"{KEEPING} loss={loss} measures=[l2,l1]" for loss in ("l2", "l1")))
    shown = capsys.readouterr().out
    table = read_results(tmp_path)
    assert {"start/l2", "end/l2", "start/l1", "end/l1"} <= set(table.columns)
    assert table["end/l2"].notna().all()
    for number in (*table["end/l2"], *table["end/l2"] / table["start/l2"]):
        assert f"{number:.4g}" in shown
    journal = results(tmp_path)
    assert not mixed(latest(journal))
    cell = next(iter(journal.cells))
    journal.measures[cell]["l2"]["alike"] = "other"
    assert mixed(latest(journal)) == ["l2"]
    plan = make_plan(request_of(tmp_path, *KEEPING.split()))
    outcomes = [Outcome(replace(plan, cell=replace(plan.cell, id=one)), entry) for one, entry in journal.cells.items()]
    assert "different configs of l2" in str(matrices_of("x", outcomes, journal)[-1])


def test_other_versions_read_the_journal(tmp_path: Path) -> None:
    """One without measures takes their lines for sweeps of no cells; lines of later kinds are told, not guessed at."""
    sweep_here(tmp_path, f"{KEEPING} measures=[l2]")
    path = tmp_path / "journal.jsonl"
    (line,) = [found for text in path.read_text().splitlines() if (found := json.loads(text)).get("kind")]
    assert line["cells"] == []
    assert line["sweep"] == f"measure {line['key']}"
    Journal(path).append({"kind": "later", "cell": line["cell"], "state": "failed", "rows": []})
    journal = results(tmp_path)
    assert [entry["state"] for entry in journal.cells.values()] == ["done"]
    assert not any(name.startswith("measure") for name in journal.sweeps)
    assert str(journal.complaint()).endswith("line 4 is of a later losslab and left out")
    path.write_bytes(path.read_bytes().replace(b'"measure": "l2"', b'"measure": "l1"'))
    assert "line 3 is damaged and left out" in str(results(tmp_path).complaint())
    assert measured(tmp_path) == {}


def test_commands_measure(tmp_path: Path) -> None:
    """The real command: single and parallel, with a word that needs quotes, and refused names before any folder."""
    outputs, quoted = tmp_path / "outputs", 'measures=[l2,"deep network=cnn1 layer=conv1"]'
    words = ["task=keeping", "trainer.max_epochs=1"]
    for asked, said in (
        ("mmdp", "no loss=mmdp; did you mean mmdpp?"),
        ('"lp loss.q=3"', "no key 'loss.q'; did you mean loss.p?"),
    ):
        refused = run_command(outputs, "-m", *words, "loss=l1,l2", f"measures=[l2,{asked}]")
        assert refused.returncode == 2
        assert said in refused.stderr
    assert not outputs.exists()
    one = run_command(outputs, *words, "loss=l2", quoted)
    assert one.returncode == 0, one.stderr
    assert "by l2, deep network=cnn1 layer=conv1" in one.stdout
    assert "deep network=cnn1 layer=conv1 ┃" in one.stdout, "the table lacks the last column"
    more = run_command(
        outputs, "-m", "hydra/launcher=parallel", "hydra.launcher.n_jobs=2", *words, "loss=l1,l2", quoted
    )
    assert more.returncode == 0, more.stderr
    assert len(measured(outputs)) == 4
    assert more.stdout.count("\nmeasured keeping/") == 1
    assert "share of the distance at the start" in more.stdout
