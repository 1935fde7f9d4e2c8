"""The tar archives that torch wrote before version 0.1.10, as Python 2 and numpy can write them."""

import io
import struct
import tarfile
from collections.abc import Mapping

import numpy as np

from tests.weights.python2 import Global, Persistent, Reduced, dumps

STORAGE, TENSOR = Global("torch", "FloatStorage"), Global("torch.cuda", "FloatTensor")
FIRST_KEY = 140_000_000  # torch took the address of an object


def archive(arrays: Mapping[str, np.ndarray], wrap: str | None = None) -> bytes:
    """A state dict of float32 arrays, under the key `wrap` of a checkpoint where that is given.

    All lie in one storage; the second half of the arrays is in a part of it that has a key of its own.
    """
    flat = np.concatenate([values.ravel() for values in arrays.values()]).astype("<f4")
    names = list(arrays)
    starts = dict(zip(names, np.cumsum([0, *(values.size for values in arrays.values())]).tolist(), strict=False))
    half = starts[names[len(names) // 2]]
    root, part = FIRST_KEY, FIRST_KEY + 1
    storages = dumps(1) + dumps((root, "cpu", STORAGE)) + struct.pack("<q", flat.size) + flat.tobytes()
    storages += dumps([(part, root, half, flat.size - half)])
    tensors, ids = dumps(len(arrays)), []
    for number, (name, values) in enumerate(arrays.items()):
        key, start = FIRST_KEY + 2 + number, starts[name]
        place = (part, start - half) if start >= half else (root, start)
        strides = [stride // values.itemsize for stride in np.ascontiguousarray(values).strides]
        tensors += dumps((key, place[0], TENSOR)) + struct.pack("<i4x", values.ndim)
        tensors += struct.pack(f"<{2 * values.ndim + 1}q", *values.shape, *strides, place[1])
        ids.append([name, Persistent(str(key))])
    state = Reduced(Global("collections", "OrderedDict"), (ids,))
    members = {"sys_info": dumps({"protocol_version": 1000}), "pickle": dumps({wrap: state} if wrap else state)}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content in {**members, "tensors": tensors, "storages": storages}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()
