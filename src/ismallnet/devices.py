"""The devices of a training run, and how this process is set up for them."""

from __future__ import annotations

import ctypes
import os
import platform
import warnings
from typing import TYPE_CHECKING, Literal

import torch

from ismallnet.runtimes import device_of, has_bf16

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ismallnet.config import Training


def launch(training: Training) -> Fabric:
    """Start the devices of a recipe and set this process up. Under torchrun their number is torchrun's."""
    from lightning_fabric import Fabric

    torch.set_flush_denormal(True)  # denormal numbers make a step on a CPU up to eight times slower
    devices, nodes = training.devices, training.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = Fabric(
        accelerator=training.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision="bf16-mixed" if precision(training) == "bf16" else "32-true",
    )
    fabric.launch()
    if fabric.device.type == "cpu":
        _keep_memory()
    return fabric


def precision(training: Training) -> Literal["float32", "bf16"]:
    """Return in what a recipe is trained here.

    Warns:
        UserWarning: It asks for bf16 by name on a device that emulates it.
    """
    if training.precision == "float32":
        return "float32"
    able = has_bf16(device := device_of(training.accelerator))
    if training.precision == "bf16" and not able:
        warnings.warn(
            f"the device {device} only emulates bf16, which takes many times as long as float32; "
            "training.precision auto chooses what it computes in",
            stacklevel=2,
        )
        return "bf16"
    return "bf16" if able else "float32"


def check_share(batch: int, world_size: int) -> None:
    """Refuse a batch that the devices cannot share.

    Raises:
        ValueError: It is no multiple of their number.
    """
    if batch % world_size:
        raise ValueError(
            f"{world_size} devices cannot share a batch of {batch} equally; choose a multiple of it"
        )


def _keep_memory() -> None:
    """Let glibc keep freed memory: fresh pages for every large tensor cost a tenth of a step on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large block
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing is given back
