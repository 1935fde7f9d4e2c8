"""Weights in and out: of our own runs, torchvision, Caffe, and the authors' cuda-convnet.

    network = build(compose(["recipe=torchvision"]), classes=1000)
    load_into(Path("alexnet.pth"), network)
    save(Path("alexnet.safetensors"), network)

A file is known by its content, and a state dict by the names of its layers, whatever it is wrapped in. Channels, order
of inputs and layout become ours on the way in; the pixels that a network wants (mean, scale) are the recipe's business.
"""

from repro.weights.formats import check, fingerprint, load_into, read, save

__all__ = ["check", "fingerprint", "load_into", "read", "save"]
