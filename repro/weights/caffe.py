"""Caffe's `.caffemodel` files, and its mean images: protocol buffers, of which four messages matter here.

Caffe's images are BGR, ours RGB: the input channels of conv1 are reversed. Its pixels are 0-255 less a mean image,
as ours; that mean is not in the model but in a `.binaryproto` of its own.
"""

import math
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from repro.errors import UserError
from repro.weights.names import shown

# Message -> field -> (number, type), of BVLC/caffe, src/caffe/proto/caffe.proto; what we do not read is left out.
# The floats are declared as bytes: a packed field looks the same in the file, and numpy reads it in one go.
_MESSAGES = {
    "BlobShape": {"dim": (1, "repeated int64")},
    "BlobProto": {
        "num": (1, "int32"),
        "channels": (2, "int32"),
        "height": (3, "int32"),
        "width": (4, "int32"),
        "data": (5, "bytes"),
        "shape": (7, "BlobShape"),
        "double_data": (8, "bytes"),
    },
    "LayerParameter": {"name": (1, "string"), "blobs": (7, "repeated BlobProto")},
    "V1LayerParameter": {"name": (4, "string"), "blobs": (6, "repeated BlobProto")},
    "NetParameter": {"layers": (2, "repeated V1LayerParameter"), "layer": (100, "repeated LayerParameter")},
}


_NET_FIELDS = {1: 2, 2: 2, 3: 2, 4: 0, 5: 0, 6: 2, 7: 0, 8: 2, 100: 2}
"""Fields of NetParameter -> wire type, 2 for what has a length, 0 for a number (caffe.proto)."""
_LAYER_FIELDS = (2, 100)


def recognises(path: Path) -> bool:
    """Tells whether a file reads as the fields of a NetParameter up to its first layer, whatever the net is called."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        while (field := _varint(file)) is not None and _NET_FIELDS.get(field >> 3) == field & 7:
            value = _varint(file)
            if field >> 3 in _LAYER_FIELDS or value is None:
                return bool(value)
            if field & 7 == 2:
                if value >= end - file.tell():
                    return False
                file.seek(value, 1)
    return False


def _varint(file: BinaryIO) -> int | None:
    """A number, seven bits a byte, low ones first, at most ten bytes; None where there is none."""
    number = 0
    for place in range(10):
        byte = file.read(1)
        if not byte:
            return None
        number |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            return number
    return None


def read(path: Path) -> dict[str, Tensor]:
    """The weights of a model, of before 2015 (`layers`) or after (`layer`), with conv1 for RGB images."""
    net = _parse("NetParameter", path)
    tensors = {}
    for layer in (*net.layer, *net.layers):
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            values = _array(blob, f"{path}: layer {shown(layer.name)}: {kind}")
            tensors[f"{layer.name}.{kind}"] = torch.from_numpy(values.reshape(-1) if kind == "bias" else values)
    if "conv1.weight" in tensors:
        tensors["conv1.weight"] = tensors["conv1.weight"].flip(1)
    return tensors


def read_mean(path: Path) -> np.ndarray:
    """The mean image (H, W, 3) of a `.binaryproto`, RGB, 0-255. UserError where it is no such file."""
    from google.protobuf.message import DecodeError

    try:
        mean = _array(_parse("BlobProto", path), f"{path}: mean image")
        mean = mean.reshape(mean.shape[-3:])  # Caffe keeps it as a batch of one
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): give a mean image of Caffe") from error
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path}: not a mean image of Caffe, or damaged") from error
    if mean.ndim != 3 or len(mean) != 3:
        raise UserError(f"{path}: {' x '.join(map(str, mean.shape))} numbers are not the mean of colour images")
    return mean[::-1].transpose(1, 2, 0).copy()


def _array(blob: Any, what: str) -> np.ndarray:
    """A blob's numbers in its shape, float32. Before 2015 that had four axes, for a matrix (1, 1, rows, columns)."""
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    values = np.frombuffer(blob.data, "<f4") if blob.data else np.frombuffer(blob.double_data, "<f8")
    if math.prod(shape) != len(values):
        raise UserError(f"{what} has {len(values)} numbers for a shape of {' x '.join(map(str, shape))}")
    if len(shape) == 4 and shape[:2] == (1, 1):
        shape = shape[2:]
    return values.reshape(shape).astype(np.float32)


def _parse(message: str, path: Path) -> Any:
    from google.protobuf import message_factory

    factory = message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"caffe.{message}"))
    return factory.FromString(path.read_bytes())


@cache
def _pool() -> Any:
    """The messages above, as protobuf wants them."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool

    scalars = {
        "int32": Field.TYPE_INT32,
        "int64": Field.TYPE_INT64,
        "bytes": Field.TYPE_BYTES,
        "string": Field.TYPE_STRING,
    }
    file = FileDescriptorProto(name="caffe.proto", package="caffe")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, declared) in fields.items():
            label = Field.LABEL_REPEATED if declared.startswith("repeated ") else Field.LABEL_OPTIONAL
            kind = declared.removeprefix("repeated ")
            field = described.field.add(name=name, number=number, label=label)
            if kind in scalars:
                field.type = scalars[kind]
            else:
                field.type, field.type_name = Field.TYPE_MESSAGE, f".caffe.{kind}"
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool
