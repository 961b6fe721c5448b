"""The devices of a training run, and how this process is set up for them."""

from __future__ import annotations

import ctypes
import os
import platform
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ismallnet.runtimes import device_of, has_bf16

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ismallnet.config import Training


def launch(training: Training) -> Fabric:
    """Start the devices of a recipe and set this process up. Under torchrun their number is torchrun's.

    Warns:
        UserWarning: The recipe asks for bf16 by name on a device that is not known to compute in it.
    """
    from lightning_fabric import Fabric

    device = device_of(training.accelerator)
    if training.precision == "bf16" and not has_bf16(device):
        warnings.warn(
            f"the device {device} is not known to compute in bf16; emulated, it takes many times as long as "
            "float32. training.precision auto chooses what it computes in",
            stacklevel=2,
        )
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
        precision="bf16-mixed" if settled(training).precision == "bf16" else "32-true",
    )
    fabric.launch()
    if fabric.device.type == "cpu":
        _keep_memory()
    return fabric


def settled(training: Training) -> Training:
    """Return the same with the precision that `auto` stands for here."""
    if training.precision != "auto":
        return training
    able = has_bf16(device_of(training.accelerator))
    return replace(training, precision="bf16" if able else "float32")


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
