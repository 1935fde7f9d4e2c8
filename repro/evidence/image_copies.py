"""Copies of public data sets that are not the originals, by the content hash of their packed store.

A number from such a copy is not the number of the original: every table that shows one says so.
"""

_CIFAR_10_JPEG = "099f05ee209700e67c942d42cd541fb0dc418c65de49e1702af47b86ba0439f0"
_IMAGENETTE_224_AT_146 = "57e7533c10cb8ec69d0ac1a4857c3a5af1e400df5fa577604897cb588ab2cb20"
_IMAGENETTE_224_AT_256 = "998e6355602c6619585d09175a3490ce1745fd9ff7fadfb8f9e47e79ad47f8de"

_REMARKS = {
    _CIFAR_10_JPEG: "CIFAR-10 re-encoded as JPEG of quality 75: errors run a little higher than on the original arrays",
    _IMAGENETTE_224_AT_146: "Imagenette from a copy whose images had been resized to 224x224",
    _IMAGENETTE_224_AT_256: "Imagenette from a copy whose images had been resized to 224x224, enlarged to 256",
}


def remark(content_hash: str) -> str:
    """Says what a reader must know about these images; empty for originals and for copies that are not known."""
    return _REMARKS.get(content_hash, "")
