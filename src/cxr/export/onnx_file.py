"""Writing a network as an ONNX file, and running such a file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.errors import CxrError, DataError, InstallationError
from cxr.export.probability_network import PROBABILITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONNX_FILE = "model.onnx"
BATCH = "batch"
"""Name of the first axis of every input and of the output; any number of images fits."""
OPSET = 15
"""Version of ONNX's operations: old enough for runtimes that hospitals have, and all our networks need no newer one."""
STANDARD_DOMAIN = ""
"""Domain of the operations that every runtime has."""


def expect_packages() -> None:
    """Check that the packages of an export are installed, without the seconds that importing them takes.

    Raises:
        ModuleNotFoundError: if one is missing; the command line explains it.
    """
    for name in ("onnx", "onnxruntime", "tf2onnx"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def expect_converter() -> None:
    """Check before the work that the packages of an export are installed, and that Keras runs on TensorFlow.

    Raises:
        ModuleNotFoundError: if a package is missing; the command line explains it.
        InstallationError: if Keras runs on another backend.
    """
    import keras

    expect_packages()
    if keras.backend.backend() != "tensorflow":
        raise InstallationError(
            f"expected Keras on TensorFlow, which the converter reads, received KERAS_BACKEND={keras.backend.backend()}"
            "; set KERAS_BACKEND=tensorflow: models that another backend trained load there, too"
        )


def write_onnx(network: Any, path: Path) -> None:
    """Convert a network, and check that the file holds it alone: its own inputs and standard operations.

    Args:
        network: Keras model with named inputs and one output ``(batch,)``.
        path: file to write.

    Raises:
        DataError: if an operation cannot be converted; the text names it.
    """
    import keras
    import onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # what it cannot convert stands in the error
    signature = [
        [keras.InputSpec(dtype=tensor.dtype, shape=tensor.shape, name=tensor.name) for tensor in network.inputs]
    ]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="In the future `np.object`", category=FutureWarning)
            network.export(path, format="onnx", verbose=False, input_signature=signature, opset_version=OPSET)
        graph = onnx.load(path)
        _refuse_what_other_runtimes_lack(graph, {tensor.name for tensor in network.inputs})
        _name_axes_and_output(graph)
        onnx.checker.check_model(graph, full_check=True)
    except CxrError:
        raise
    except Exception as error:  # the converter and the checker raise whatever their parts raise
        raise _conversion_error(str(error).strip() or repr(error)) from error
    onnx.save(graph, path)


class OnnxNetwork:
    """An ONNX file in ONNX Runtime, on the CPU. Several threads may call it."""

    def __init__(self, path: Path, threads: int | None) -> None:
        """Load the file.

        Args:
            path: the file.
            threads: threads of one call; None for one per core.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of machines whose graphics cards it cannot list
        options.intra_op_num_threads = threads or 0
        # Threads that spin while they wait take the cores from reading images and from other calls (decision 28).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def probabilities(self, images: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Compute the calibrated probabilities of pneumonia.

        Args:
            images: name of each input to prepared images ``(n, size, size, planes)`` uint8.

        Returns:
            ``(n,)`` float32.
        """
        (probability,) = self._session.run([PROBABILITY], dict(images))
        return np.asarray(probability, dtype=np.float32)


def _refuse_what_other_runtimes_lack(graph: Any, inputs: Collection[str]) -> None:
    """Name the operations that are not ONNX's, and the inputs that the converter has added."""
    from onnx import defs

    unknown = {
        node.op_type
        for node in graph.graph.node
        if node.domain != STANDARD_DOMAIN or not defs.has(node.op_type, OPSET, STANDARD_DOMAIN)
    }
    if unknown:
        raise _conversion_error(", ".join(sorted(unknown)))
    if added := [value.name for value in graph.graph.input if value.name not in inputs]:
        raise _conversion_error(f"values that are no weights: {', '.join(added)}")


def _name_axes_and_output(graph: Any) -> None:
    """Give the output its name, and the first axes theirs: the converter counts them."""
    (output,) = graph.graph.output
    for node in graph.graph.node:
        node.output[:] = [PROBABILITY if name == output.name else name for name in node.output]
    output.name = PROBABILITY
    for value in (*graph.graph.input, output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.graph.value_info[:]  # shapes between the operations, with the counted names; runtimes infer them


def _conversion_error(reason: str) -> DataError:
    return DataError(
        f"expected a network of operations that ONNX has, received {reason}; replace these operations in the network, "
        "or serve the model itself with `cxr serve --runtime keras`"
    )
