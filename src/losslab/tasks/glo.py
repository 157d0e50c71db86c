"""Generative Latent Optimization (GLO): a generator and one code an image, learnt together under any loss."""

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.image import StructuralSimilarityIndexMeasure

from losslab import images
from losslab.data.base import Batch
from losslab.divergence import DivergedError
from losslab.losses.base import Loss
from losslab.losses.penalty import NoPenalty, Penalty
from losslab.losses.pixel import L2
from losslab.models.codes import project, sample_gaussian, start_codes
from losslab.optimizers import JointOptimizer
from losslab.types import Bytes, Distance, Image

SHOWN = 32
"""Pictures in a grid."""
COLUMNS = 8
STRIPS, STRIP_STEPS = 4, 10
"""Interpolations shown, and pictures in each."""
PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed")
"""Weights of 16 bits would lose the small steps of codes."""
HIGHEST_PSNR = 10 * math.log10(12 * 255**2)
"""58.9 dB, that of rounding to 8 bits (a variance of 1/12): no picture file can tell better ones apart."""


class GLO(pl.LightningModule):
    """min over generator g and codes z_i of the mean of loss(g(z_i), x_i) + penalty(g(z_i)) over training images x_i.

    Args:
        loss: what reconstructions are trained with.
        generator: makes the generator when it is called with `code_size` and `image_size`.
        code_size: numbers in a code.
        init: the codes' start: "normal", "unit_gaussian" or "pca" (`losslab.models.codes.start_codes`).
        projection: where codes are kept, applied after each step: "none", "sphere" or "ball".
        code_optimizer: makes the codes' optimiser of a list of parameters.
        generator_optimizer: makes the generator's.
        scheduler: makes a schedule of both learning rates, stepped once an epoch; None keeps them.
        warmup: share of the training's steps that trains with L2 before the loss and the penalty take over, 0 to 1.
        seed: of the random start of codes, and of the samples.
        penalty: what a generated image costs by itself; None for nothing.

    Source: Bojanowski et al., "Optimizing the Latent Space of Generative Networks", ICML 2018; its unit ball is
        applied here, where ariel415el/PerceptualLossExperiments (force_norm) only names it. Optimisers as there.
    """

    stages = ("fit", "test")
    primary = "psnr"

    codes: nn.Parameter
    generator: nn.Module

    def __init__(
        self,
        loss: Loss[Any],
        generator: Callable[..., nn.Module],
        code_optimizer: Callable[..., Optimizer],
        generator_optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        code_size: int = 64,
        init: str = "pca",
        projection: str = "ball",
        warmup: float = 0.0,
        seed: int = 0,
        penalty: Penalty | None = None,
    ) -> None:
        """Keep the parts; `setup` builds what depends on the number and the size of the images."""
        super().__init__()
        if not 0 <= warmup <= 1:
            raise ValueError(f"task.warmup is a share from 0 to 1, got {warmup}")
        self.loss, self.warmup_loss, self.penalty = loss, L2(), penalty or NoPenalty()
        self.make_generator, self.scheduler = generator, scheduler
        self.make_optimizers = {"codes": code_optimizer, "generator": generator_optimizer}
        self.code_size, self.init, self.projection = code_size, init, projection
        self.warmup, self.seed = warmup, seed
        self.psnr, self.mean_colour_psnr = MeanMetric(), MeanMetric()
        self.ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
        self.row: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Make a code for each training image, and the generator; refuse images that the loss can't take."""
        if hasattr(self, "codes"):
            return
        self.originals = self.trainer.datamodule.train.stored  # type: ignore[attr-defined]
        side = self.originals.shape[-1]
        if self.trainer.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision is one of {', '.join(PRECISIONS)} for GLO, got {self.trainer.precision}"
            )
        first = images.to_float(self.originals[:1]).to(self.device)
        self.loss(first, first)  # now, and not when the warm-up ends
        start = start_codes(self.init, self.originals, self.code_size, self.seed)
        self.codes = nn.Parameter(project(start, self.projection))
        self.generator = self.make_generator(code_size=self.code_size, image_size=side)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | Optimizer:
        """Give codes and generator an optimiser each, that step together."""
        codes = self.make_optimizers["codes"]([self.codes])
        generator = self.make_optimizers["generator"](list(self.generator.parameters()))
        joint = JointOptimizer(codes=codes, generator=generator)
        if self.scheduler is None:
            return joint
        return {"optimizer": joint, "lr_scheduler": {"scheduler": self.scheduler(joint), "interval": "epoch"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compare the reconstructions of a batch with its images, by L2 in the warm-up and by the loss after it."""
        warm = self.global_step < self.warmup_steps
        if self.global_step == self.warmup_steps > 0:
            self.optimizers(use_pl_optimizer=False).forget()  # type: ignore[union-attr]
        loss = self.warmup_loss if warm else self.loss
        loss.draw(self.global_step)
        found = self.generator(self.codes[batch.indices]).to(batch.images.dtype)
        with torch.no_grad():
            targets = loss.encode(batch.images)
        parts = loss.parts(loss.encode(found), targets)
        if not (warm or isinstance(self.penalty, NoPenalty)):
            parts["penalty"] = self.penalty(found)
        means = {name: distance.mean() for name, distance in parts.items()}
        total = torch.stack(list(means.values())).sum()
        if not total.isfinite():
            term = next((name for name, mean in means.items() if not mean.isfinite()), loss.name)
            message = f"{term} of {loss.name} became {total.item()} at step {self.global_step}: {_numbers(means)}"
            raise DivergedError(message, term=term, step=self.global_step)
        self.log("warmup" if warm else "loss", total)
        if len(means) > 1:
            self.log_dict({f"loss/{name}": value for name, value in means.items()})
        return total

    def on_train_start(self) -> None:
        """Count the steps that train with L2."""
        self.warmup_steps = round(self.warmup * self.trainer.estimated_stepping_batches)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and project the codes, which it may have moved out of their place."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.codes.copy_(project(self.codes, self.projection))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score the reconstructions of the training images, and what their mean colours alone would score."""
        found = self.generator(self.codes[batch.indices]).float()
        flat = batch.images.mean(dim=(-2, -1), keepdim=True).expand_as(batch.images)
        self.psnr.update(_psnr(found, batch.images))
        self.mean_colour_psnr.update(_psnr(flat, batch.images))
        self.ssim.update(found, batch.images)

    def on_test_epoch_end(self) -> None:
        """Close the row of results."""
        psnr, flat = float(self.psnr.compute()), float(self.mean_colour_psnr.compute())
        ssim = float(torch.as_tensor(self.ssim.compute()))
        scores = {"psnr": psnr, "ssim": ssim, "mean_colour_psnr": flat, "psnr_gain": psnr - flat}
        self.log_dict(scores, rank_zero_only=True)
        self.row = {**scores, "warmup": self.warmup}

    def rows(self) -> list[dict[str, Any]]:
        """Give one row: PSNR in dB and SSIM of the reconstructions, the mean colours' PSNR, and the gain over it."""
        return [self.row]

    def pictures(self, step: int, *, final: bool = False) -> dict[str, Bytes]:
        """Give originals with their reconstructions below; at the end, samples and interpolations too."""
        return {"reconstructions": self._reconstructions(), **(self._new_pictures() if final else {})}

    def _reconstructions(self) -> Bytes:
        """Show training images that are spread over the data set, each row of them above its reconstructions."""
        count = min(SHOWN, len(self.originals))
        shown = torch.linspace(0, len(self.originals) - 1, count).round().long()
        found = self._images(self.codes[shown.to(self.device)])
        return images.grid([images.to_float(self.originals[shown]), found], COLUMNS)

    def _new_pictures(self) -> dict[str, Bytes]:
        """Show samples of a Gaussian fitted to the codes, and interpolations between codes."""
        samples = project(sample_gaussian(self.codes.detach(), SHOWN, self.seed), self.projection)
        ends = torch.linspace(0, len(self.codes) - 1, 2 * STRIPS).round().long()
        share = torch.linspace(0, 1, STRIP_STEPS, device=self.device)[:, None]
        first, last = self.codes.detach()[ends.to(self.device)].chunk(2)
        strips = torch.cat([a + share * (b - a) for a, b in zip(first, last, strict=True)])
        return {
            "samples": images.grid([self._images(samples)], COLUMNS),
            "interpolations": images.grid([self._images(project(strips, self.projection))], STRIP_STEPS),
        }

    @torch.no_grad()
    def _images(self, codes: Tensor) -> Image:
        """Generate in eval mode, and leave the mode as it was."""
        training = self.generator.training
        found: Tensor = self.generator.eval()(codes)
        self.generator.train(training)
        return found.float().cpu()


def _psnr(found: Image, originals: Image) -> Distance:
    """Give the PSNR of each image in dB, (N,), at most that of 8 bits."""
    each = peak_signal_noise_ratio(found, originals, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return each.clamp(max=HIGHEST_PSNR)


def _numbers(means: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {value.item():.4g}" for name, value in means.items())
