import io

import pandas as pd
from rich.console import Console

from repro.profiling.printed import difference_table


def test_a_kernels_name_begins_with_what_tells_it_from_others() -> None:
    name = "void at::native::(anonymous namespace)::max_pool_backward_nhwc<c10::BFloat16, float>(c10::BFloat16*)"
    row = {"kernel": name, "phase": "backward", "reference": 1.0, "other": 2.0, "difference": 1.0}
    table = pd.DataFrame([row | {"difference_percent": 100.0}])
    console = Console(file=io.StringIO(), width=142)
    console.print(difference_table(table, "title", ("a", "b")))
    assert isinstance(console.file, io.StringIO)
    assert "max_pool_backward_nhwc<BFloat16, float>(BFloat1…" in console.file.getvalue()
