"""The learner: batches in, weights out. A plain class; no process, queue or clock."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from muzero_ray.errors import CheckpointError, NumericsError, as_checkpoint_error
from muzero_ray.networks.flat import flatten_state, to_tensor
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.norm import batch_norms
from muzero_ray.training.clamping import clamped_targets
from muzero_ray.training.data_parallel import DataParallelGroup
from muzero_ray.training.losses import LossInput, LossTerm, Targets, UnrolledOutput, total_loss, unroll
from muzero_ray.training.results import TrainResult
from muzero_ray.training.validation_metrics import validation_metrics
from muzero_ray.types import Batch, FloatArray

MEAN_RATE = 1e-3
"""Share by which an update moves the mean of the inputs, once that many updates are averaged."""

NORM_RATE = 0.05
"""The same for the running numbers of BatchNorm, which have to follow the weights."""


class Learner:
    """Trains one network; built by `build.make_learner`.

    In a `DataParallelGroup` each rank trains on its part of every batch, and all make the update of the whole batch:
    equal weights, to the bit, stay equal.

    `step` counts learner steps, but for skipped ones. With the same thread count, the same batches give the same
    weights to the bit, also across `state`/`load_state`.
    """

    def __init__(
        self,
        network: MuZeroNetwork,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int], float],
        *,
        device: torch.device,
        bf16: bool,
        terms: Mapping[str, LossTerm],
        max_grad_norm: float,
        ema_decay: float,
        max_skipped: int,
        augment: Callable[[Batch, int], Batch] | None = None,
        group: DataParallelGroup | None = None,
    ) -> None:
        """network: on `device` already, its parameters in `optimizer`. schedule: learning rate of learner step `step`.

        terms: of the loss, by name. augment: `(batch, step)` to what is trained on in its place.
        """
        self.step = 0
        self._skipped_in_row = 0
        self._network = network
        self._optimizer = optimizer
        self._schedule = schedule
        self._device = device
        self._bf16 = bf16
        self._terms = terms
        self._max_grad_norm = max_grad_norm
        self._ema_decay = ema_decay
        self._max_skipped = max_skipped
        self._augment = augment
        self._group = group
        self._norms = list(batch_norms(network))
        self._parameters = dict(network.named_parameters())
        self._average = {name: p.detach().clone() for name, p in self._parameters.items()}

    def train_step(self, batch: Batch) -> TrainResult:
        """One learner step on `batch`. NumericsError after `max_skipped` in a row had to be skipped."""
        self._optimizer.zero_grad(set_to_none=True)
        total, losses, errors = self._loss(batch if self._augment is None else self._augment(batch, self.step))
        total.backward()  # type: ignore[no-untyped-call]
        mean = self._network.mean_of(batch.observations)
        if self._group is not None:
            inputs = [] if mean is None else [mean]
            statistics = [tensor for norm in self._norms for tensor in norm.batch_statistics()]
            self._join_parts(self._group, [total.detach(), *losses, *inputs, *statistics], errors)
        grad_norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._max_grad_norm)
        # The only wait for the device: everything the host needs, in one transfer.
        packed = torch.cat((torch.stack([total.detach(), grad_norm, *losses]), errors)).cpu().numpy()
        numbers, errors_np = packed[: 2 + len(losses)], packed[2 + len(losses) :]
        finite = np.isfinite(errors_np)
        priorities = np.where(finite, errors_np, np.float32(0.0))
        if not (np.isfinite(numbers).all() and finite.all()):
            return self._skip(numbers, priorities)
        self._network.track_mean(mean, max(1 / (self.step + 1), MEAN_RATE))
        for norm in self._norms:
            norm.commit(max(1 / (self.step + 1), NORM_RATE))
        lr = self._schedule(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        torch._foreach_lerp_(
            list(self._average.values()), [p.detach() for p in self._parameters.values()], 1.0 - self._ema_decay
        )
        self.step += 1
        self._skipped_in_row = 0
        names = ["loss/total", "learner/grad_norm", *(f"loss/{name}" for name in self._terms)]
        clamped = clamped_targets(
            batch, value_support=self._network.value_support, reward_support=self._network.reward_support
        )
        logged = dict(zip(names, numbers.tolist(), strict=True)) | {"learner/lr": lr}
        return TrainResult(logged, priorities, skipped=False, clamped=clamped)

    def _join_parts(self, group: DataParallelGroup, means: list[torch.Tensor], errors: torch.Tensor) -> None:
        """Turn, in place, the gradients and `means` (the loss first) of this rank's part into those of the whole batch.

        NaN and infinities outlive an average, so all ranks skip the update or none does.
        """
        means[0] += (errors - errors).sum()  # 0, or NaN if one of them is not finite
        group.average([*(p.grad for p in self._parameters.values() if p.grad is not None), *means])

    def _loss(self, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """(scalar loss, the mean of each term for the log, |value error| `[B]`)."""
        targets, network = self._targets(batch), self._network
        later, mask = self._observed(batch)
        # One context: casts of weights are kept until it is left.
        with self._autocast():
            out = self._unrolled(batch)
            per_sample, losses = total_loss(self._terms, LossInput(network, out, targets, later, mask))
        weights = self._tensor(batch.weights)
        with torch.no_grad():
            errors = (network.value_support.decode(out.value_logits[:, 0]) - targets.value[:, 0]).abs()
            means = [(loss * weights).mean() for loss in losses.values()]
        return (per_sample * weights).mean(), means, errors

    def _unrolled(self, batch: Batch) -> UnrolledOutput:
        return unroll(self._network, self._tensor(batch.observations), self._tensor(batch.actions))

    def _observed(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
        """next_observations and their mask, if the batch has any."""
        if batch.next_observations is None:
            return None, None
        return self._tensor(batch.next_observations), self._tensor(batch.observation_mask)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)

    def _targets(self, batch: Batch) -> Targets:
        return Targets(
            value=self._tensor(batch.target_value),
            reward=self._tensor(batch.target_reward),
            policy=self._tensor(batch.target_policy),
            policy_mask=self._tensor(batch.policy_mask),
            value_mask=self._tensor(batch.value_mask),
        )

    def validate(self, batch: Batch) -> dict[str, float]:
        """The `model/` metrics of the newest weights on `batch`, which should not have been trained on."""
        network = self._network
        network.eval()  # as search sees it
        with torch.no_grad(), self._autocast():
            out = self._unrolled(batch)
        network.train()
        return validation_metrics(
            out,
            self._targets(batch),
            value_support=network.value_support,
            reward_support=network.reward_support,
        )

    def _skip(self, numbers: FloatArray, priorities: FloatArray) -> TrainResult:
        self._optimizer.zero_grad(set_to_none=True)
        for norm in self._norms:
            norm.discard()
        self._skipped_in_row += 1
        if self._skipped_in_row >= self._max_skipped:
            raise NumericsError(
                f"the last {self._skipped_in_row} learner steps after step {self.step} were not finite "
                f"(loss {numbers[0]}, gradient norm {numbers[1]}; learner.max_skipped={self._max_skipped}), so the "
                "weights stayed as they were. Lower learner.lr or learner.max_grad_norm, or look for extreme rewards"
            )
        return TrainResult({}, priorities, skipped=True)

    def _tensor(self, array: Any) -> torch.Tensor:
        return to_tensor(array, self._device)

    def weights(self) -> FloatArray:
        """Copy of the newest weights, `[P]` in `networks.flat` order. NumericsError if they are not finite."""
        return self._finite("the weights", flatten_state(self._network))

    def fingerprint(self) -> int:
        """CRC-32 of the newest weights."""
        return zlib.crc32(flatten_state(self._network))

    def target_weights(self) -> FloatArray:
        """Copy of the moving average of the weights (all parameters; the network has no buffers), as `weights`."""
        flat: FloatArray = torch.cat([self._average[n].reshape(-1) for n in self._network.state_dict()]).cpu().numpy()
        return self._finite("the moving average of the weights", flat)

    def _finite(self, what: str, array: FloatArray) -> FloatArray:
        """`array`, if nothing in it would poison who takes it over."""
        if not np.isfinite(array).all():
            raise NumericsError(
                f"{what} are not finite at learner step {self.step}, so they were neither published nor saved. Resume "
                "from the last checkpoint; if it happens again, lower learner.lr or learner.max_grad_norm"
            )
        return array

    def state(self) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """Everything a continued run needs: (named arrays, JSON).

        Arrays: `model.<parameter>`, `average.<parameter>`, `optimizer.<slot>.<parameter>`. NumericsError if one is not
        finite.
        """
        arrays: dict[str, FloatArray] = {}
        for name, parameter in self._parameters.items():
            arrays[f"model.{name}"] = _numpy(parameter)
            arrays[f"average.{name}"] = _numpy(self._average[name])
            for slot, value in self._optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    arrays[f"optimizer.{slot}.{name}"] = _numpy(value)
        for name, array in arrays.items():
            self._finite(f"the numbers of {name}", array)
        return arrays, {"step": self.step, "skipped_in_row": self._skipped_in_row}

    @as_checkpoint_error("the learner's state")
    def load_state(self, arrays: dict[str, FloatArray], info: dict[str, Any]) -> None:
        """Take over what `state` returned, exactly. CheckpointError, and nothing changed, if it does not fit."""
        step, skipped_in_row = int(info["step"]), int(info["skipped_in_row"])
        kinds = {key.split(".", 1)[0] for key in arrays}
        expected = {f"{kind}.{name}" for kind in ("model", "average") for name in self._parameters}
        given = {key for key in arrays if not key.startswith("optimizer.")}
        if given != expected or kinds - {"model", "average", "optimizer"}:
            odd = sorted(given ^ expected)[:3]
            raise CheckpointError(f"the learner's state belongs to another network: {odd} missing or unknown")
        slots: dict[str, dict[str, torch.Tensor]] = {name: {} for name in self._parameters}
        for key, array in arrays.items():
            kind, rest = key.split(".", 1)
            slot, name = rest.split(".", 1) if kind == "optimizer" else ("", rest)
            if name not in self._parameters or (array.shape != self._parameters[name].shape and slot != "step"):
                raise CheckpointError(f"the learner's state does not fit this network: {key} has shape {array.shape}")
            if slot:
                slots[name][slot] = to_tensor(array)
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(to_tensor(arrays[f"model.{name}"]))
                self._average[name].copy_(to_tensor(arrays[f"average.{name}"]))
                # Same memory format as the parameter: the fused optimizer walks both in memory order.
                self._optimizer.state[parameter] = {
                    slot: value.to(parameter.device, copy=True)
                    if slot == "step"
                    else torch.empty_like(parameter).copy_(value)
                    for slot, value in slots[name].items()
                }
        self.step, self._skipped_in_row = step, skipped_in_row


def _numpy(tensor: torch.Tensor) -> FloatArray:
    out: FloatArray = np.array(tensor.detach().cpu().numpy(), order="C")  # a copy; np.array keeps strides otherwise
    return out
