"""Records, their files, and the tables made of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from nexrl.errors import ConfigError
from tools.bench.facts import command_line, make_record
from tools.bench.report import fill_in
from tools.bench.rows import Detail, Row, at_least, at_most, load_record, save_record, text_of

ROOT = Path(__file__).parents[2]
ROWS = [
    Row(figure="time", value=12.345, unit="s", target=at_most(20)),
    Row(figure="score", value=0.5, target=at_least(0.9), note="n = 512"),
    Row(figure="goal", value=None, unit="s", target=at_most(1)),
    Row(figure="aside", value=1234.0),
]


@pytest.fixture
def record():
    return make_record("demo", ROWS, details=[Detail(title="By seed", columns=("seed", "s"), lines=(("0", "1.5"),))])


def test_a_target_is_met_on_its_own_side_and_never_by_nothing():
    assert [row.verdict for row in ROWS] == ["met", "missed", "missed", ""]
    assert at_most(2).met_by(2)
    assert at_least(2).met_by(2)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.12345, "s", "0.123 s"), (12.345, "", "12.3"), (1234.5, "tokens/s", "1,234 tokens/s"), (None, "s", "never")],
)
def test_figures_have_three_digits_that_count(value, unit, text):
    assert text_of(value, unit) == text


def test_a_record_comes_back_from_its_file_as_it_was(record, tmp_path):
    path = tmp_path / "new" / "demo.json"
    save_record(record, path)
    assert load_record(path) == record
    assert [file.name for file in path.parent.iterdir()] == ["demo.json"]


@pytest.mark.parametrize(("content", "told"), [(None, "no such file"), ('{"rows": 3}', "not a benchmark's record")])
def test_a_bad_file_is_named(tmp_path, content, told):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=rf"x\.json: {told}"):
        load_record(path)


def test_a_record_says_what_it_ran_on(record):
    assert "cores" in record.hardware
    assert "GiB" in record.hardware
    assert {"python", "torch", "transformers"} <= record.versions.keys()


def test_a_command_does_not_tell_where_things_lie_on_this_machine():
    shown = command_line(["grpo", "--weights", "/home/me/models/start", "--seeds", "0,1"])
    assert shown == "python -m tools.bench grpo --weights start --seeds 0,1"


def test_the_document_gets_the_tables_in_their_place_and_again_without_doubling(record):
    document = "# Figures\n<!-- demo -->\nold\n<!-- /demo -->\nend\n"
    once = fill_in(document, [record])
    assert fill_in(once, [record]) == once
    lines = once.splitlines()
    assert "| time | 12.3 s | ≤ 20 s | met |  |" in lines
    assert "| score | 0.5 | ≥ 0.9 | missed | n = 512 |" in lines
    assert "| 0 | 1.5 |" in lines
    assert "old" not in lines
    assert lines[-1] == "end"


def test_a_document_without_the_place_is_refused(record):
    with pytest.raises(ConfigError, match="no place for demo"):
        fill_in("# Figures\n", [record])


def test_the_document_has_a_place_for_every_benchmark():
    document = (ROOT / "docs" / "benchmarks.md").read_text()
    for name in ("demo", "grpo", "engine", "weights", "store"):
        assert document.count(f"<!-- {name} -->") == document.count(f"<!-- /{name} -->") == 1


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tools.bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_names_every_command():
    done = bench("--help")
    assert done.returncode == 0
    for name in ("demo", "grpo", "engine", "weights", "store", "report"):
        assert f" {name} " in done.stdout


def test_report_prints_the_figures_and_fills_the_document(record, tmp_path):
    document, file = tmp_path / "doc.md", tmp_path / "demo.json"
    document.write_text("<!-- demo -->\n<!-- /demo -->\n")
    save_record(record, file)
    done = bench("report", str(file), "--document", str(document))
    assert done.returncode == 0, done.stderr
    assert "missed" in done.stdout
    assert "| time | 12.3 s | ≤ 20 s | met |  |" in document.read_text()


def test_a_users_error_is_one_line(tmp_path):
    done = bench("report", str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: {tmp_path}/none.json: no such file; a benchmark's --out writes it"]
