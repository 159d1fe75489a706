"""In which precision convolutional networks compute: the settings `actors.precision` and `learner.precision`."""

from __future__ import annotations

from typing import Literal

import torch

from muzero_ray.networks.notes import say_once

Precision = Literal["auto", "float32", "bf16"]


def has_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions for bf16. On a CPU: AVX512-BF16, which every one with AMX has, too."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def use_bf16(precision: Precision, device: torch.device, setting: str) -> bool:
    """Whether a network on `device` shall compute in bf16. `auto`: if there are instructions for it.

    setting: whose value `precision` is. A warning says once that bf16 is asked for where it does not pay.
    """
    if precision == "auto":
        return has_bf16(device)
    if precision == "bf16" and not has_bf16(device):
        say_once(
            f"{setting}=bf16: this {device.type} has no instructions for bf16. Emulated, a learner step takes several "
            "times as long as in float32. Use auto"
        )
    return precision == "bf16"
