"""Reference reproduction of AlexNet (Krizhevsky, Sutskever, Hinton, NIPS 2012)."""

import os

__version__ = "0.1.0"

# PyTorch's CPU memory in huge pages: a step's hundreds of MiB come anew from the system each time, page by page.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
