"""Learned metrics: heads on a network's layers, and the network itself, trained on people's judgements of triplets."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from losslab import images
from losslab.data.judged import TripletBatch, Triplets
from losslab.divergence import DivergedError
from losslab.losses.learned import Learned, check_variant
from losslab.losses.panel import Panel
from losslab.models.ranking import make_ranking
from losslab.tasks.judging import Judging
from losslab.tasks.two_afc import contradicted
from losslab.types import Distance, Drawn, map_encoding

SYNC = 10.0
"""Weight of the sync loss: Learner of LTU-Machine-Learning/Analysis-of-Deep-Perceptual-Loss-Networks."""

ALWAYS = -1
"""The setting of `sync` that asks the batch."""


class MetricTraining(Judging):
    """Trains LPIPS so that a ranking net can tell from its two distances what people will say, and scores it by 2AFC.

    Formula: min over heads w ≥ 0, the ranking net r, and for "tune" and "scratch" the network, of the mean over
        triplets of BCE(r(d0, d1), h) + 10 s BCE(σ(d0 - d1), h), h the share of judgements for p1, s 1 where the sync
        loss is on, else 0.

    Args:
        loss: LPIPS without heads, over any network and layers.
        optimizer: makes the optimiser of a list of parameters.
        variant: "baseline" trains nothing, and is scored with heads that are all one; "lin" trains heads on the network
            as it is; "tune" trains the network too, from trained weights; "scratch" from random ones.
        ranking: "large", "small" or "none" (`losslab.models.ranking`).
        start: of the heads, "uniform" or "ones" (`losslab.losses.learned`).
        dropout: share of the squared differences that are dropped before the heads while they train.
        sync: epochs with the sync loss, which keeps small distances near; 0 for none, -1 for those batches whose
            2AFC score is ½ or less.
        decay: share of the epochs, at the end, over which the learning rate falls linearly to 0.
        seed: of the start of heads and ranking net, and of the bootstrap.

    Raises:
        ValueError: an argument that is none, or a loss that doesn't fit the variant.

    Paper and code: all heads are clipped at zero behind each step, and nothing else. LPIPS' trainer clips every 1 × 1
        convolution: in SqueezeNet also the 16 of the Fire modules, and that in "lin" too, where the network counts as
        frozen (its releases before July 2019 held a frozen network out of reach; alexnet and vgg16 have none). The
        study's trainer clips between forward and backward pass, so that weights below zero are trained with, and are
        left behind by the last step. Its sync loss for N epochs begins again with each resume; its ReLU around a
        cross-entropy does nothing. Learning rates of both programs: the full one for six epochs of ten, then .8, .6, .4
        and .2 of it, which `decay=0.5` is for ten epochs.

    Source: Zhang et al., CVPR 2018, sections 3 and 4, and richzhang/PerceptualSimilarity; Pihlgren et al., arXiv
        2302.04032, and LTU-Machine-Learning/Analysis-of-Deep-Perceptual-Loss-Networks (`ranking`, `sync`).
    """

    kind = Triplets

    running: Tensor
    epoch_loss: Tensor

    def __init__(
        self,
        loss: nn.Module,
        optimizer: Callable[..., Optimizer],
        variant: str = "lin",
        ranking: str = "large",
        start: str = "uniform",
        dropout: float = 0.5,
        sync: int = 0,
        decay: float = 0.5,
        seed: int = 0,
    ) -> None:
        """Check that variant and loss fit, and put heads and a ranking net on."""
        super().__init__(None, seed=seed, save_distances=False)
        check_variant(variant, loss)
        if not isinstance(sync, int) or isinstance(sync, bool) or sync < ALWAYS:
            raise ValueError(
                f"task.sync is a number of epochs, or {ALWAYS} for batches of a score up to ½, got {sync!r}"
            )
        if not 0 <= decay <= 1:
            raise ValueError(f"task.decay is a share of the epochs from 0 to 1, got {decay!r}")
        self.metric = Learned(loss, "ones" if variant == "baseline" else start, dropout, seed)  # type: ignore[arg-type]
        self.ranking = make_ranking(ranking, seed)
        self.make_optimizer, self.variant, self.sync, self.decay = optimizer, variant, sync, decay
        self.trains = variant != "baseline"
        self.stages = ("fit", "test") if self.trains else ("test",)
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("epoch_loss", torch.zeros(()))

    def setup(self, stage: str) -> None:
        """Refuse data that are not for it, and pictures that the metric can't take."""
        first = images.to_float(self.data.test.pictures[:1]).to(self.device)
        self.metric(first, first)
        if stage == "test":
            super().setup(stage)

    def judged(self) -> Panel:
        """Give the metric as it is now, and what it was before.

        Raises:
            DivergedError: heads are no numbers.
        """
        if not all(bool(head.isfinite().all()) for head in self.metric.heads):
            raise DivergedError(f"heads of the {self.variant} metric are no numbers", term="heads")
        return Panel(
            {self.variant: self.metric.fixed(), **({"untrained": self.metric.untrained()} if self.trains else {})}
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Train all that is to be trained, at a rate that falls at the end."""
        optimizer = self.make_optimizer([one for one in self.parameters() if one.requires_grad])
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ValueError(f"the learning rate falls towards trainer.max_epochs, which is to be given, got {epochs}")
        schedule = LambdaLR(optimizer, lambda epoch: rate(epoch, epochs, self.decay))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def on_train_start(self) -> None:
        """Let dropout differ between devices; one device, and a resume, keep the generator that they have."""
        if self.trainer.world_size > 1 and self.global_step == 0:
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def training_step(self, batch: TripletBatch, batch_idx: int) -> Tensor:
        """Foretell the judgements of a batch."""
        d0, d1 = self._distances(batch)
        terms = {"ranking": binary_cross_entropy_with_logits(self.ranking(d0, d1), batch.judge)}
        score = self._mean(torch.where(d0 < d1, 1 - batch.judge, batch.judge).where(d0 != d1, 0.5).mean())
        if self.current_epoch < self.sync or (self.sync == ALWAYS and score <= 0.5):
            terms["sync"] = SYNC * binary_cross_entropy_with_logits(d0 - d1, batch.judge)
        total = torch.stack([*terms.values()]).sum()
        if not total.isfinite():
            term = next(name for name, one in terms.items() if not one.isfinite())
            message = f"{term} of {self.variant} became {total.item()} at step {self.global_step}"
            raise DivergedError(message, term=term, step=self.global_step)
        self.log("loss", total)
        self.log("train_score", score)
        self.running += torch.stack([self._mean(total), torch.ones_like(total)])
        return total

    def on_train_epoch_end(self) -> None:
        """Keep the mean loss of the epoch."""
        self.epoch_loss.copy_(self.running[0] / self.running[1])
        self.running.zero_()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and clip the heads, which it may have taken below zero."""
        super().optimizer_step(*args, **kwargs)
        self.metric.clip()

    def on_test_epoch_end(self) -> None:
        """Score both metrics.

        Raises:
            DivergedError: one of them gives what is no number.
        """
        super().on_test_epoch_end()
        if self.diverged is not None:
            raise self.diverged

    def rows(self) -> list[dict[str, Any]]:
        """Give one row: the metric's, with the scores of what it was before, the loss, and the shares of zero heads."""
        own, *before = self.found_rows
        row = {
            "variant": self.variant,
            **{name: one for name, one in own.items() if name not in ("measure", "like_best")},
        }
        if not self.trains:
            return [row]
        untrained = {
            name.replace("score", "untrained", 1): one for name, one in before[0].items() if name.startswith("score")
        }
        zeros = {f"zeros/{layer}": share for layer, share in self.metric.zeros().items()}
        gain = row["score"] - untrained["untrained"]
        return [{**row, **untrained, "gain": gain, "train_loss": float(self.epoch_loss), **zeros}]

    def worst(self, loss: int) -> list[Tensor]:
        """Give the triplets in which a metric is surest of what most people did not choose."""
        assert isinstance(self.data.test, Triplets)  # `data` has refused others
        return contradicted(self.data.test, self.mean_distances(loss), self.PICTURES)

    def files(self) -> dict[str, bytes]:
        """Give `heads.pth`, the network as `trunk.pth` where it was trained, and what the training has changed."""
        return {**self.metric.files(), **super().files()} if self.trains else {}

    def _distances(self, batch: TripletBatch) -> tuple[Distance, Distance]:
        """Give the distances to the reference, from one pass of all pictures."""
        count = len(batch.judge)
        found = self.metric.encode(torch.cat([batch.reference, batch.p0, batch.p1]))
        reference, p0, p1 = (_share(found, slice(k * count, (k + 1) * count)) for k in range(3))
        return self.metric.compare(reference, p0), self.metric.compare(reference, p1)

    def _mean(self, number: Tensor) -> Tensor:
        """Average a number over devices."""
        return torch.as_tensor(self.trainer.strategy.reduce(number.detach(), reduce_op="mean"))


def _share(encoding: Drawn[dict[str, Any]], which: slice) -> Drawn[dict[str, Any]]:
    """Give the encodings of some images of a batch."""
    return map_encoding(lambda one: one[which], encoding)  # type: ignore[return-value]


def rate(epoch: int, epochs: int, decay: float) -> float:
    """Give the learning rate of an epoch as a share of the first one's.

    Formula: min(1, (E - e) / (decay E)), e the epoch from 0, E their number.

    Args:
        epoch: from 0.
        epochs: of the training.
        decay: share of them over which the rate falls to 0.

    Example:
        >>> [round(rate(epoch, 10, 0.5), 2) for epoch in range(10)]
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    """
    return min(1.0, (epochs - epoch) / (decay * epochs)) if decay else 1.0
