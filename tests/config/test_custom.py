"""Loading classes of one's own."""

from abc import ABC, abstractmethod

import pytest

from nexrl.config.custom import load_attribute, load_class
from nexrl.errors import ConfigError


class Base(ABC):
    @abstractmethod
    def act(self): ...


SOURCE = f"""
import sys
from dataclasses import dataclass
Base = sys.modules[{__name__!r}].Base
class Good(Base):
    def act(self): return "acted"
class Unfinished(Base): pass
class Stranger: pass
@dataclass
class Record:
    value: "int" = 3
tools = [len]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_a_class_of_the_right_base_is_loaded(file):
    assert load_class(f"{file}:Good", Base)().act() == "acted"


def test_a_file_runs_once(file):
    assert load_class(f"{file}:Good", Base) is load_class(f"{file}:Good", Base)


def test_dataclasses_and_plain_values_load(file):
    assert load_attribute(f"{file}:Record")().value == 3
    assert load_attribute(f"{file}:tools") == [len]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Missing", ["mine.py has no 'Missing'", "Good"]),
        ("Stranger", ["Stranger", "needs a subclass of", "Base"]),
        ("Unfinished", ["lacks act", "Base"]),
        ("tools", ["needs a subclass of"]),
    ],
)
def test_a_wrong_class_is_named(file, name, words):
    with pytest.raises(ConfigError) as caught:
        load_class(f"{file}:{name}", Base)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("spec", ["no_colon", ":Class", "file.py:", "file.py:not a name"])
def test_a_malformed_spec_says_the_form(spec):
    with pytest.raises(ConfigError, match=r"path/to/file\.py:Name"):
        load_attribute(spec)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file: .*gone\.py"):
        load_attribute(f"{tmp_path}/gone.py:X")


def test_a_file_that_is_not_python_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(ConfigError, match="not a Python file"):
        load_attribute(f"{path}:X")


def test_an_error_in_the_file_is_told_and_the_next_try_runs_it_again(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import no_such_package")
    with pytest.raises(ConfigError, match=r"broken\.py cannot be loaded: ModuleNotFoundError"):
        load_attribute(f"{path}:X")
    path.write_text("Xylophone = 1  # longer, so that no cached bytecode fits")
    assert load_attribute(f"{path}:Xylophone") == 1
