"""All that is used of OpenVINO beyond what it documents: no other module names it.

`pyproject.toml` says up to which version of OpenVINO this is known to work; `tests/test_private_names.py` checks it.
"""

from __future__ import annotations

from typing import Any

import openvino as ov
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder


def convert(traced: Any) -> ov.Model:
    """The graph of a traced torch function.

    Not by `ov.convert_model`, which takes ten times as long and reports its use over the network.
    """
    decoder = TorchScriptPythonDecoder(traced, shared_memory=False)  # must outlive the conversion
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))
