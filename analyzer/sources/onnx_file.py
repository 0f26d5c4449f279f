"""ONNX files: read but for their large weights, hashed, checked for being what they claim."""

import hashlib
from dataclasses import dataclass, field, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError, EncodeError

from analyzer.errors import ModelRejectedError, UsageError
from analyzer.sources import external_data
from analyzer.sources.light import without_weights

MAX_MODEL_BYTES: Final = 2**31 - 1  # protobuf's limit for one message

_OTHER_KINDS: Final = (
    (0, b"PK\x03\x04", "a zip archive, such as PyTorch and Keras save,"),
    (0, b"\x89HDF\r\n", "an HDF5 file, such as Keras saves,"),
    (4, b"TFL3", "a TFLite model,"),
    (4, b"ORTM", "a model in the runtime's own .ort format,"),
    (0, b"\x80", "a pickle, such as PyTorch saves,"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the model itself was not downloaded,"),
    (0, b"<", "an HTML or XML page: the download probably failed,"),
)


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model in memory and where it came from.

    Attributes:
        model: The model. Of a file, weights above 64 KiB stay where they are: their tensors name
            the file by its absolute path (`external_data.bring_in` loads them).
        name: The file's name without its folders, or the graph's name.
        path: None for a ModelProto.
        sha256: Of the file, or of the serialised ModelProto.
        external: sha256 of each external data file, by its name in the model.
        stamps: What `files` looked like when they were read.
    """

    model: onnx.ModelProto
    name: str
    path: Path | None
    sha256: str
    external: dict[str, str] = field(default_factory=dict)
    stamps: tuple[tuple[int, ...], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and its external data files."""
        if self.path is None:
            return ()
        return self.path, *(self.path.resolve().parent / name for name in self.external)

    def require_unchanged(self) -> None:
        """Weights that were left in the files must still be there.

        Raises:
            UsageError: A file was written anew, or is gone.
        """
        for file, before in zip(self.files, self.stamps, strict=True):
            if external_data.stamp(file) != before:
                raise UsageError(f"{file}: changed since the model was loaded; load it again")


def from_proto(model: onnx.ModelProto) -> OpenedModel:
    """A copy of a ModelProto, checked like a file."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name = copy.graph.name or "model"
    try:
        data = copy.SerializeToString(deterministic=True)
    except (ValueError, EncodeError) as error:
        raise ModelRejectedError(
            f"{name}: more than 2 GiB with its weights; save it with its weights in a file beside "
            "it (onnx.save_model(…, save_as_external_data=True)) and give its path"
        ) from error
    if any(external_data.is_external(tensor) for tensor in external_data.tensors(copy)):
        raise UsageError(
            f"{name}: weights lie in external files; give the path of the ONNX file instead"
        )
    _check(copy, name)
    return OpenedModel(copy, name, None, hashlib.sha256(data).hexdigest())


def read_onnx(path: Path) -> OpenedModel:
    """Read an ONNX file and the external data beside it.

    Raises:
        UsageError: No such file, or it cannot be opened.
        ModelRejectedError: No ONNX, damaged, or a single file of more than 2 GiB.
    """
    try:
        if not path.is_file():
            what = "is a folder, not an ONNX file" if path.is_dir() else "no such model file"
            raise UsageError(f"{path}: {what}")
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise _too_large(path.name)
        stamp = external_data.stamp(path)  # of what is read now, not of what comes after
        if not path.stat().st_size:
            raise ModelRejectedError(f"{path}: the file is empty, no ONNX model")
        with (
            open(path, "rb") as file,
            mmap(file.fileno(), 0, access=ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            model = _parse(data, path)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # through a small buffer
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    external = external_data.load(model, path)
    _check(model, path.name)
    opened = OpenedModel(model, path.name, path, sha256, external)
    return replace(opened, stamps=(stamp, *map(external_data.stamp, opened.files[1:])))


def _parse(data: memoryview, path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        light = without_weights(data, path)
    except (ValueError, DecodeError):  # protobuf says what is wrong, if anything is
        light = bytes(data)
    try:
        model.ParseFromString(light)
        readable = bool(model.graph.node) and bool(model.opset_import)
    except DecodeError:
        readable = False
    if readable:
        return model
    for offset, magic, kind in _OTHER_KINDS:
        if data[offset : offset + len(magic)] == magic:
            raise ModelRejectedError(f"{path}: {kind} no ONNX model; export the model to ONNX")
    raise ModelRejectedError(
        f"{path}: no ONNX model, or a truncated one ({len(data)} bytes); fetch or export it again"
    )


def _check(model: onnx.ModelProto, name: str) -> None:
    """Refuse operators that nobody here can run, by name, and whatever else the checker refuses."""
    _one_spelling(model)
    versions = {o.domain or "ai.onnx": o.version for o in model.opset_import}
    local = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        domain = node.domain or "ai.onnx"
        if (node.domain, node.op_type) in local or _is_known(node, domain, versions.get(domain, 0)):
            continue
        full = node.op_type if domain == "ai.onnx" else f"{domain}.{node.op_type}"
        where = node.name or next(iter(node.output), "?")
        raise ModelRejectedError(
            f"{name}: operator {full!r} (node {where!r}) is unknown in {domain} opset "
            f"{versions.get(domain, 'none')}; export the model again with standard operators"
        )
    try:
        onnx.checker.check_model(_without_external(model))
    except onnx.checker.ValidationError as error:
        raise ModelRejectedError(f"{name}: not a valid ONNX model: {_brief(error)}") from error


def _without_external(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy in which weights that stayed in their files are graph inputs."""
    outside = {t.name: t for t in model.graph.initializer if external_data.is_external(t)}
    if not outside:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(t for t in model.graph.initializer if t.name not in outside)
    known = {value.name for value in copy.graph.input}
    copy.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        for name, tensor in outside.items()
        if name not in known
    )
    return copy


def _is_known(node: onnx.NodeProto, domain: str, version: int) -> bool:
    if domain == "com.microsoft":
        return True  # the runtime's own operators, of which ONNX keeps no list
    try:
        onnx.defs.get_schema(node.op_type, version, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return False
    return True


def _one_spelling(model: onnx.ModelProto) -> None:
    """Spell the standard domain as "", as the checker wants it; runtimes take "ai.onnx" too."""
    for graph in external_data.graphs(model):
        for node in graph.node:
            if node.domain == "ai.onnx":
                node.domain = ""
    given = {opset.domain or "": opset.version for opset in model.opset_import}
    if "ai.onnx" in given:
        given[""] = max(given.pop("ai.onnx"), given.get("", 0))
        del model.opset_import[:]
        model.opset_import.extend(onnx.helper.make_opsetid(*item) for item in given.items())


def _too_large(name: str) -> ModelRejectedError:
    return ModelRejectedError(
        f"{name}: more than 2 GiB in one file, which protobuf cannot read; export the model with "
        "its weights in a file beside it (external data)"
    )


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
