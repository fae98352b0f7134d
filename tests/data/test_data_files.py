"""Files, good and bad."""

import datetime
import decimal
import json

import pyarrow
import pytest
from pyarrow import parquet

from nexrl.config.schema import DataConfig
from nexrl.data import TorchDataLoader
from nexrl.errors import DataError


def load(*files, count_tokens=None, **config):
    return TorchDataLoader(DataConfig(data_files=tuple(map(str, files)), **config), count_tokens=count_tokens)


def items(loader):
    return list(iter(loader.get_next_item, None))


@pytest.fixture
def jsonl(tmp_path):
    def write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def table(tmp_path):
    def write(columns, name="rows.parquet"):
        path = tmp_path / name
        parquet.write_table(pyarrow.table(columns), path)
        return path

    return write


def test_the_three_formats_say_the_same(tmp_path, jsonl, table):
    columns = {"prompt": ["ab>", "cd>"], "ground_truth": ["ba", "dc"], "data_source": ["x", "y"], "level": [1, 2]}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    csv = tmp_path / "rows.csv"
    csv.write_text("prompt,ground_truth,data_source,level\nab>,ba,x,1\ncd>,dc,y,2\n")
    for file in (jsonl(*rows), table(columns), csv):
        found = [(i.prompt, i.ground_truth, i.data_source, i.fields) for i in items(load(file))]
        assert found == [("ab>", "ba", "x", {"level": 1}), ("cd>", "dc", "y", {"level": 2})]


def test_several_files_follow_each_other_and_rows_have_names(tmp_path, jsonl):
    first = jsonl({"prompt": "a"}, "\n", {"prompt": "b"}, name="one.jsonl")
    second = jsonl({"prompt": "c"}, name="two.jsonl")
    found = [(i.task_id, i.prompt, i.row, i.order, i.data_source) for i in items(load(first, second))]
    assert found == [
        ("one.jsonl:1", "a", 0, 0, "one"),
        ("one.jsonl:3", "b", 1, 1, "one"),
        ("two.jsonl:1", "c", 2, 2, "two"),
    ]


def test_files_of_one_name_have_different_task_ids(tmp_path, jsonl):
    (tmp_path / "other").mkdir()
    first, second = jsonl({"prompt": "a"}), jsonl({"prompt": "a"}, name="other/rows.jsonl")
    assert [item.task_id for item in items(load(first, second))] == ["0:rows.jsonl:1", "1:rows.jsonl:1"]


def test_messages_of_parquet_lose_the_nulls_that_arrow_fills_in(table):
    chat = [{"role": "system", "content": "s", "name": "n"}, {"role": "user", "content": "u", "name": None}]
    [item] = items(load(table({"prompt": [chat]})))
    assert item.prompt == [{"role": "system", "content": "s", "name": "n"}, {"role": "user", "content": "u"}]


def test_a_message_with_tool_calls_needs_no_content(jsonl):
    call = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    [item] = items(load(jsonl({"prompt": [call]})))
    assert item.prompt == [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]


def test_ground_truth_may_stand_in_reward_model(table):
    [item] = items(load(table({"prompt": ["p"], "reward_model": [{"ground_truth": "42", "style": "rule"}]})))
    assert item.ground_truth == "42"
    assert item.fields == {"reward_model": {"ground_truth": "42", "style": "rule"}}


def test_a_row_may_lack_a_ground_truth(jsonl):
    assert items(load(jsonl({"prompt": "p"})))[0].ground_truth is None


def test_keys_may_have_other_names(jsonl):
    file = jsonl({"question": "q", "answer": [1, 2]})
    [item] = items(load(file, prompt_key="question", ground_truth_key="answer"))
    assert (item.prompt, item.ground_truth) == ("q", [1, 2])


def test_csv_keeps_numbers_of_text_columns_as_written(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text('prompt,ground_truth,level\n12,007,3\n"two\nlines",1.50,4\n')
    found = [(i.prompt, i.ground_truth, i.fields) for i in items(load(file))]
    assert found == [("12", "007", {"level": 3}), ("two\nlines", "1.50", {"level": 4})]


def test_fields_are_json_values(table):
    columns = {
        "prompt": ["p"],
        "day": [datetime.date(2026, 1, 2)],
        "price": [decimal.Decimal("1.50")],
        "nothing": [float("nan")],
    }
    [item] = items(load(table(columns)))
    assert item.fields == {"day": "2026-01-02", "price": "1.50", "nothing": None}


def test_a_byte_order_mark_is_no_content(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "p"}\r\n')
    assert items(load(file))[0].prompt == "p"


# -- length


def test_an_overlong_prompt_is_an_error_with_both_numbers(jsonl):
    file = jsonl({"prompt": "abc"}, {"prompt": "abcd"})
    with pytest.raises(DataError) as caught:
        load(file, count_tokens=len, max_prompt_length=3)
    for words in (
        f"{file}, row 2, column 'prompt'",
        "found 4 tokens",
        "data.max_prompt_length = 3",
        "overlong_prompts",
    ):
        assert words in str(caught.value)


def test_overlong_prompts_are_dropped_and_counted(jsonl, caplog):
    file = jsonl(*({"prompt": "a" * n} for n in (5, 2, 4, 3)))
    loader = load(file, count_tokens=len, max_prompt_length=3, overlong_prompts="drop")
    assert [item.task_id for item in items(loader)] == ["rows.jsonl:2", "rows.jsonl:4"]
    assert (loader.num_rows, loader.num_dropped) == (2, 2)
    assert "left out 2 of 4 rows" in caplog.text


def test_dropping_everything_is_an_error(jsonl):
    with pytest.raises(DataError, match=r"rows\.jsonl: all 2 prompts are longer than data\.max_prompt_length = 1"):
        load(
            jsonl({"prompt": "ab"}, {"prompt": "cd"}),
            count_tokens=len,
            max_prompt_length=1,
            overlong_prompts="drop",
        )


# -- bad input

BAD_ROWS = [
    ('{"prompt": "p"}\n{"prompt": \n', ["row 2", "not valid JSON"]),
    ('["p"]\n', ["row 1", "needs a JSON object"]),
    ('{"question": "p"}\n', ["row 1", "no column 'prompt' (data.prompt_key)", "found question"]),
    ("{}\n", ["row 1", "no columns"]),
    ('{"prompt": "p"}\n\n{"prompt": null}\n', ["row 3, column 'prompt'", "is null", "needs text"]),
    ('{"prompt": ""}\n', ["row 1, column 'prompt'", "is empty"]),
    ('{"prompt": "  "}\n', ["row 1, column 'prompt'", "is empty"]),
    ('{"prompt": []}\n', ["row 1, column 'prompt'", "is empty"]),
    ('{"prompt": 7}\n', ["row 1, column 'prompt'", "found int 7"]),
    ('{"prompt": {"role": "user"}}\n', ["found dict", "list of chat messages"]),
    ('{"prompt": ["hi"]}\n', ["message 0", "`role`"]),
    ('{"prompt": [{"role": "user", "content": "a"}, {"role": 3}]}\n', ["message 1", "`role`"]),
    ('{"prompt": [{"role": "user"}]}\n', ["message 0", "`content`"]),
    ('{"prompt": "p", "data_source": 3}\n', ["row 1, column 'data_source'", "found 3, needs text"]),
    (b'{"prompt": "\xff"}\n'.decode("latin-1"), []),
    ("", ["is empty"]),
    ("\n \n", ["is empty"]),
]


@pytest.mark.parametrize(("content", "words"), BAD_ROWS)
def test_a_bad_jsonl_is_named(tmp_path, content, words):
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        load(file)
    message = str(caught.value)
    assert str(file) in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.parquet", b"no parquet at all", ["not a readable parquet file"]),
        ("rows.parquet", b"", ["not a readable parquet file"]),
        ("rows.csv", b"", ["is empty"]),
        ("rows.csv", b"prompt,ground_truth\n", ["is empty"]),
        ("rows.csv", b"prompt,ground_truth\na,b,c\n", ["not a readable csv file", "got 3"]),
        ("rows.csv", b"question\na\n", ["row 1", "no column 'prompt'", "found question"]),
        ("rows.csv", b"prompt,level\nx,1\n,2\n", ["row 2, column 'prompt'", "is empty"]),
        ("rows.txt", b"p", ["suffix '.txt'", ".parquet, .csv, .jsonl"]),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, words):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(file)
    message = str(caught.value)
    assert str(file) in message
    assert [word for word in words if word not in message] == []


def test_bad_rows_of_parquet_are_numbered(table):
    file = table({"prompt": ["a", None]})
    with pytest.raises(DataError, match="row 2, column 'prompt': is null"):
        load(file)


def test_an_empty_parquet_is_named(table):
    with pytest.raises(DataError, match="is empty"):
        load(table({"prompt": pyarrow.array([], pyarrow.string())}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.parquet: no such file \(data\.data_files\)"):
        load(tmp_path / "gone.parquet")


def test_the_second_file_is_named_where_it_is_the_bad_one(jsonl):
    good, bad = jsonl({"prompt": "p"}, name="good.jsonl"), jsonl({"prompt": None}, name="bad.jsonl")
    with pytest.raises(DataError, match=r"bad\.jsonl, row 1"):
        load(good, bad)
