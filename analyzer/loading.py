"""load(): from a file to an Analyzer."""

from analyzer.declaration import LabelSource, PreprocessSource, declare
from analyzer.errors import UsageError
from analyzer.model import Analyzer
from analyzer.session import Device, Precision, settle
from analyzer.sources import ModelSource, open_model


def load(
    source: ModelSource,
    *,
    preprocess: PreprocessSource = None,
    labels: LabelSource = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    batch_size: int | None = None,
) -> Analyzer:
    """Open a model for explaining.

    Args:
        source: The path of an ONNX file, or a ModelProto.
        preprocess: A `Preprocess`, its keys, a preset ("imagenet", "caffe", "tf", "raw"), an entry
            of the catalogue, or a TOML file. By default the sidecar `<model>.toml`, else the
            catalogue's entry for this very file, else an assumption that warns when it is used.
        labels: Class names, a text file with one name a line, or a label set of the catalogue.
        device: "cpu", "cuda" (an error where CUDA does not load), or "auto".
        precision: Of products on CUDA: "tf32" and "float16" are meant for speed, right to about
            three digits; "float32" is what agrees with a CPU.
        batch_size: The most images at a time; 8 by default, but explanations on a CPU take as many
            as there are cores, and fewer large ones.

    Raises:
        UsageError: No such file; an unknown preset, device or key; labels that do not fit.
        ModelRejectedError: No ONNX, damaged, without an image input, or not supported.
        MissingProviderError: The device does not load.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size = {batch_size}; at least one image must run")
    settled = settle(device, precision)
    opened = open_model(source)
    declared = declare(preprocess, labels, opened.path, opened.sha256)
    return Analyzer(opened, declared, settled, batch_size)
