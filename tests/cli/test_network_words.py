"""Words about networks, layers and weights that mean nothing end in one sentence, with the key and the way out."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, quiet

# Without the check of annotations, which would see a wrong type before our own sentence does
PROGRAM = """
import contextlib, io, json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv = ["compare.py", *words]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path("src/compare.py", run_name="__main__")
        print("no error")
    except SystemExit as end:
        print(end.code)
"""

SAID = {
    "layer=1.5": r"error: layer is a name, a depth slot 1\.\.4, .*, got 1\.5",
    "layer=true": r"error: layer is a name, .*, got true",
    "layer=[]": r"error: which layers of vgg16\? layer= names none: give a name, .*, such as layer=relu5_3",
    "layer=null": r"error: which layers of vgg16\? layer= names none: give a name, .*",
    "network=torchvision": r"error: network\.architecture\.name has no value: add network\.arch.*",
    "weights=file": r"error: weights\.path has no value: add weights\.path=\.\.\. to the command",
    "network=cnn1 weights=pretrained": r"error: weights=pretrained is for models of torchvision and timm, and 2 conv.*",
    "precision=16": r"error: precision is one of 32, bf16, got 16",
    "network.pooling=median": r"error: network\.pooling is one of max, average, blur, l2, got 'median'",
    "network.channels_last=maybe": r"error: network\.channels_last is true or false, got 'maybe'",
    "network.trainable=maybe": r"error: network\.trainable is true or false, got 'maybe'",
    "loss=lpips network=resnet18": r"error: LPIPS v0\.1 and v0\.0 have heads for alex.*, got 'v0\.1' for 'resnet18'",
    "network=torchvision network.architecture.name=swin_t layer=features": r"error: swin_t works on tokens, .*",
    "weights=file weights.path=README.md": r"error: README\.md is no file of weights: it begins with b'# losslab.*",
    "loss=lpips network=squeezenet1_1 loss.heads=none weights=random": "no error",
    "loss=lpips network=prewitt loss.heads=none": "no error",
    "loss=lpips network=resnet18 loss.heads=none layer=1 weights=random": "no error",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the last line of each command, all from one process."""
    import torch

    from losslab import images

    picture = tmp_path_factory.mktemp("pictures") / "one.png"
    images.write(picture, torch.randint(0, 255, (3, 48, 48), dtype=torch.uint8))
    commands = [[str(picture), str(picture), *_words(words)] for words in SAID]
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(commands)], cwd=ROOT, env=quiet(), text=True,
                          capture_output=True, check=True, timeout=300)  # fmt: skip
    assert not done.stderr
    return dict(zip(SAID, done.stdout.splitlines(), strict=True))


def _words(words: str) -> list[str]:
    return words.split() if "loss=" in words else ["loss=deep", *words.split()]


@pytest.mark.parametrize("words", SAID)
def test_words(words: str, answers: dict[str, str]) -> None:
    """One line, no name of an exception, and what was found."""
    assert re.fullmatch(SAID[words], answers[words])


def test_networks_without_a_config() -> None:
    """Tokens are refused by name; others are told where they are to be had."""
    from losslab.config import CONF, unlisted

    known = sorted(path.stem for path in (Path(CONF) / "network").glob("*.yaml"))
    tokens = unlisted("network", "vit_b_16", known)
    assert tokens == "vit_b_16 works on tokens, not on maps of places: choose a convolutional network"
    assert unlisted("network", "vgg17", known) == "did you mean vgg19?"
    assert re.match("any convolutional model .* network.architecture.name=convnext_tiny; the choices are alexnet, ",
                    str(unlisted("network", "convnext_tiny", known)))  # fmt: skip
    assert unlisted("loss", "l9", ["l1", "l2"]) is None
