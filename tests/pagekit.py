"""The code on a page of docs/, run as it stands there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType


def code_of(page: str, folder: Path) -> ModuleType:
    """All Python of the page as one module, whose file lies in that folder."""
    path = folder / "page_code.py"
    path.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    spec = importlib.util.spec_from_file_location("page_code", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
