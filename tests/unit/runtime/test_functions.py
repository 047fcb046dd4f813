"""`gai_fast/runtime/functions.py`: the user's function is imported, or the reason why not is one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gai_fast.runtime.functions import FunctionError, import_function


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yields an empty folder; what is imported from it is forgotten."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_function_in_the_folder_is_found(modules: Path) -> None:
    (modules / "my_shop").mkdir()
    (modules / "my_shop" / "__init__.py").write_text("")
    (modules / "my_shop" / "web.py").write_text(
        "class Shop:\n  def extend(app): return 'extended'\ndef other(app): ..."
    )
    assert import_function("my_shop.web:Shop.extend", modules)("…") == "extended"
    assert import_function("my_shop.web:other", modules).__name__ == "other"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such:f", "names the module no_such, which neither {here} nor sys.path has"),
        ("own.no_such:f", "names the module own.no_such, which neither {here} nor sys.path has"),
        ("own", 'must be "module:function", such as "shop.gateway:extend"'),
        (":f", 'must be "module:function", such as "shop.gateway:extend"'),
        ("own:f", "names f, which own does not have"),
        ("own:VALUE", "names VALUE of own, which is no function but int"),
        ("own:VALUE.f", "names VALUE.f, which own does not have"),
        ("needy:f", "names the module needy, which needs no_such_library, which is not installed"),
        ("broken:f", "names the module broken, which cannot be imported: ZeroDivisionError: division by zero"),
        ("script:f", "names the module script, which cannot be imported: SystemExit: 0"),
        (
            "typo:f",
            "names the module typo, which cannot be imported: SyntaxError: invalid syntax (typo.py, line 1)",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_line(modules: Path, name: str, problem: str) -> None:
    for module, source in (
        ("own", "VALUE = 1"),
        ("needy", "import no_such_library"),
        ("broken", "1 / 0"),
        ("script", "import sys; sys.exit(0)"),
        ("typo", "f f"),
    ):
        (modules / f"{module}.py").write_text(source)
    with pytest.raises(FunctionError) as refused:
        import_function(name, modules)
    assert str(refused.value) == problem.format(here=modules)
