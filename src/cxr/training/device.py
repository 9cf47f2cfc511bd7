"""The device that a model is trained on, as the framework itself reports it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
"""Names of Keras's dtype policies to train with."""


@dataclass(frozen=True)
class PreparedDevice:
    """A device that is ready to train.

    Attributes:
        facts: the result of :func:`describe_device`.
        on_gpu: whether it is a GPU.
        batch_size: images per batch on it.
    """

    facts: dict[str, Any]
    on_gpu: bool
    batch_size: int


def describe_device() -> dict[str, Any]:
    """Describe the device that Keras computes on, with its driver and framework.

    Returns:
        ``kind`` ("cpu" or "gpu"), ``name`` (model of the processor or GPU), ``backend``, ``framework`` (name and
        version), ``keras``, ``driver`` (of the GPU, None on a CPU), ``cores``, ``python``, ``system``.
    """
    import keras

    backend = keras.backend.backend()
    framework, gpu_name = _framework_and_gpu(backend)
    return {
        "kind": "gpu" if gpu_name else "cpu",
        "name": gpu_name or processor_name(),
        "backend": backend,
        "framework": framework,
        "keras": keras.__version__,
        "driver": _driver_version() if gpu_name else None,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def prepare_device(
    seed: int, *, batch_size: int, gpu_batch_size: int | None, gpu_precision: Precision
) -> PreparedDevice:
    """Set precision and seeds for a training, before its network is built.

    Args:
        seed: as for :func:`make_deterministic`.
        batch_size: images per batch.
        gpu_batch_size: images per batch on a GPU; None for ``batch_size``.
        gpu_precision: precision on a GPU; elsewhere it is float32.

    Returns:
        The device, and the size of a batch on it.
    """
    import keras

    facts = describe_device()
    on_gpu = facts["kind"] == "gpu"
    keras.config.set_dtype_policy(gpu_precision if on_gpu else "float32")
    make_deterministic(seed)
    return PreparedDevice(facts, on_gpu, (gpu_batch_size if on_gpu else None) or batch_size)


def make_deterministic(seed: int) -> None:
    """Fix the seeds of Python, NumPy and Keras, and ask the backend for reproducible operations.

    Args:
        seed: the seed.
    """
    import keras

    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)


def processor_name() -> str:
    """Name the processor.

    Returns:
        The model name that the operating system reports, else the machine type.
    """
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _framework_and_gpu(backend: str) -> tuple[str, str | None]:
    """Name and version of the backend, and the name of the GPU that it computes on, if any."""
    if backend == "tensorflow":
        import tensorflow

        devices = tensorflow.config.list_physical_devices("GPU")
        details = tensorflow.config.experimental.get_device_details(devices[0]) if devices else {}
        return f"tensorflow {tensorflow.__version__}", details.get("device_name", "GPU") if devices else None
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return f"jax {jax.__version__}", device.device_kind if device.platform in ("gpu", "cuda", "rocm") else None
    if backend == "torch":
        import torch

        return f"torch {torch.__version__}", torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return backend, None


def gpu_memory() -> int | None:
    """Ask the driver for the memory of the GPU.

    Returns:
        Bytes, the smallest number where there are several GPUs; None if it cannot be known.
    """
    sizes = _query_driver("memory.total", "nounits")
    return min(int(size) for size in sizes) * 2**20 if sizes and all(size.isdigit() for size in sizes) else None


def _driver_version() -> str | None:
    versions = _query_driver("driver_version")
    return versions[0] if versions else None


def _query_driver(field: str, *form: str) -> list[str]:
    """One value per GPU; none without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={field}", f"--format={','.join(('csv', 'noheader', *form))}"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in process.stdout.splitlines() if line.strip()]
