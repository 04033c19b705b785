import json
import tracemalloc
from pathlib import Path

import pytest

from loadtest.input_error import InputError
from loadtest.workload.trace import Trace

LINE = '{{"timestamp": {}, "input_length": {}, "output_length": {}}}\n'
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE = f"""{HEADER}\r
2023-11-16 18:17:03.9799600,4808,10\r
2023-11-16 18:17:04.0319600,3180,8\r
2023-11-16 18:18:03.9799600,110,27"""


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "trace.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_trace_gives_times_and_both_lengths(tmp_path: Path) -> None:
    trace = Trace.read(write(tmp_path, AZURE))
    assert list(trace.times) == pytest.approx([0, 0.052, 60], abs=1e-9)
    assert [trace.shape(index) for index in range(len(trace))] == [(4808, 10), (3180, 8), (110, 27)]


def test_lengths_repeat_after_the_last_line(tmp_path: Path) -> None:
    trace = Trace.read(write(tmp_path, AZURE))
    assert trace.shape(3) == trace.shape(0)
    assert trace.shape(302) == trace.shape(2)


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n10.5,3,4\n12,5,6\n",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens\n5,ChatGPT,3,4,7\n6.5,GPT-4,5,6,11\n",
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,3.0,4.0\n2.0,5.0,6\n",
        f"{HEADER}\n1715300000500,3,4\n1715300002000,5,6\n",
        f"{HEADER}\n1715300000.5,3,4\n1715300002,5,6\n",
        "timestamp_ms,input_length,output_length\n0,3,4\n1500,5,6\n",
        LINE.format(500, 3, 4) + "\n" + LINE.format(2000, 5, 6),
        f"{HEADER}\n2024-05-10 00:00:00.5,3,4\n2024-05-10T02:00:02+02:00,5,6\n",
        f"\ufeff{HEADER}\n\n10.5,3,4\n\n12,5,6\n\n",
        "extra, generatedtokens ,Timestamp,CONTEXTTOKENS\nx,4,10.5,3\ny,6,12,5\n",
        'TIMESTAMP,ContextTokens,GeneratedTokens\n"10.5","3","4"\n"12","5","6"\n',
    ],
    ids=[
        "seconds",
        "BurstGPT",
        "Vidur",
        "Unix time in ms",
        "Unix time in s",
        "ms by name",
        "JSON lines in ms",
        "zones",
        "blank lines and byte order mark",
        "other order, case and columns",
        "quotes",
    ],
)
def test_trace_format_variants_are_equal(tmp_path: Path, text: str) -> None:
    trace = Trace.read(write(tmp_path, text))
    assert list(trace.times) == [0, 1.5]
    assert [trace.shape(0), trace.shape(1)] == [(3, 4), (5, 6)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1.5,3", "2 columns are too few"),
        ("soon,3,4", "TIMESTAMP 'soon' is neither ISO 8601 nor seconds"),
        ("nan,3,4", "TIMESTAMP 'nan' is neither ISO 8601 nor seconds"),
        ("2023-11-16 18:17:03,3,4", "TIMESTAMP '2023-11-16 18:17:03' is not of the kind of the first one"),
        ("0.5,3,4", "TIMESTAMP '0.5' is earlier than the one before; sort the file by TIMESTAMP"),
        ("1.5,many,4", "ContextTokens 'many' is not a whole number"),
        ("1.5,3,4.5", "GeneratedTokens '4.5' is not a whole number"),
        ("1.5,3,-1", "GeneratedTokens -1 is out of range"),
        ("1.5,3,99999999999", "GeneratedTokens 99999999999 is out of range"),
        ('1.5,"3"x,4', "expected"),
    ],
)
def test_bad_line_is_named_by_number(tmp_path: Path, line: str, problem: str) -> None:
    file = write(tmp_path, f"{HEADER}\n1,3,4\n\n{line}\n2,3,4\n")
    with pytest.raises(InputError) as caught:
        Trace.read(file)
    assert str(caught.value).startswith(f"--trace: {file}, line 4: ")
    assert problem in str(caught.value)
    assert str(caught.value).endswith("; correct or remove the line")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: no column TIMESTAMP, ContextTokens, GeneratedTokens among none; name the columns"),
        (
            "TIMESTAMP,Prompt,GeneratedTokens\n",
            "line 1: no column ContextTokens among TIMESTAMP, Prompt, Gen",
        ),
        (f"{HEADER}\n", "holds no requests; give a file with at least one line of data"),
        (b"\x1f\x8b\x08\xff\xfe", "is not UTF-8 text; give a CSV or JSONL file, not compressed"),
    ],
)
def test_file_without_trace_is_refused(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        Trace.read(write(tmp_path, text))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--trace: cannot read .*/none.csv: No such file or directory; "):
        Trace.read(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"^--trace: cannot read .*: Is a directory; "):
        Trace.read(tmp_path)


def test_too_long_trace_requests_are_counted(tmp_path: Path) -> None:
    trace = Trace.read(write(tmp_path, AZURE))
    trace.check_fits(None)
    trace.check_fits(4818)
    with pytest.raises(
        InputError, match=r"^--trace: 2 of 3 requests .* than the 2048 tokens .*\(up to 4818\); raise MAX"
    ):
        trace.check_fits(2048)


def test_short_prompts_are_counted(tmp_path: Path) -> None:
    trace = Trace.read(write(tmp_path, AZURE))
    assert [trace.count_prompts_below(tokens) for tokens in (110, 111, 5000)] == [0, 1, 3]


def test_trace_takes_few_bytes_per_request(tmp_path: Path) -> None:
    rows = 50_000
    file = write(tmp_path, HEADER + "\n" + "".join(f"{row},1000,100\n" for row in range(rows)))
    tracemalloc.start()
    trace = Trace.read(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(trace) == rows
    assert peak < 32 * rows  # 16 bytes kept; a list of tuples would take over 100


def mooncake(*rows: tuple[float, int, int, list[int]]) -> str:
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    return "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)


def test_size_of_blocks_tells_the_unit(tmp_path: Path) -> None:
    trace = Trace.read(write(tmp_path, mooncake((0, 655, 52, [0, 1]), (300, 600, 20, [0, 2]))))
    assert trace.blocks is not None
    assert (trace.blocks.size, list(trace.times)) == (512, [0, 0.3])
    assert trace.notes == ("the trace's time stamps were taken for ms",)
    qwen = Trace.read(write(tmp_path, mooncake((61.5, 40, 52, [5, 6, 7]), (361.5, 17, 20, [5, 8]))))
    assert qwen.blocks is not None
    assert (qwen.blocks.size, list(qwen.times), qwen.notes) == (16, [0, 300], ())


def test_shared_blocks_are_counted(tmp_path: Path) -> None:
    rows = [(0, 1000, 1, [9, 1]), (1, 1100, 1, [9, 1, 2]), (2, 600, 1, [9, 3]), (3, 600, 1, [9, 3])]
    trace = Trace.read(write(tmp_path, mooncake(*rows)))
    assert trace.blocks is not None
    assert [list(trace.blocks.of(row)) for row in range(5)] == [[0, 1], [0, 1, 2], [0, 3], [0, 3], [0, 1]]
    # 0, 1024, 512 and 600 tokens were there before.
    assert trace.shared_tokens == (1024 + 512 + 600) / 4


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n0,3,4\n300,3,4\n600,3,4\n",
        f"{HEADER}\n0.5,3,4\n300.5,3,4\n",
        LINE.format(0.5, 3, 4) + LINE.format(300.5, 3, 4),
    ],
)
def test_unclear_unit_is_refused_unless_given(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(
        InputError, match=r"may be in seconds or milliseconds: one every 300; give --trace-unit s or ms$"
    ):
        Trace.read(file)
    assert Trace.read(file, "s").times[1] == 300
    assert Trace.read(file, "ms").times[1] == pytest.approx(0.3)


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n0,0,4\n1,3,4\n2,3,0\n3,5,6\n",
        "".join(LINE.format(*row) for row in ((0, 0, 4), (1000, 3, 4), (2000, 3, 0), (3000, 5, 6))),
    ],
)
def test_rows_of_no_tokens_are_left_out_and_counted(tmp_path: Path, text: str) -> None:
    trace = Trace.read(write(tmp_path, text))
    assert [trace.shape(0), trace.shape(1)] == [(3, 4), (5, 6)]
    assert (len(trace), list(trace.times)) == (2, [0, 2])
    assert trace.notes[0] == "2 rows of the trace have 0 tokens; left out"
    with pytest.raises(InputError, match="holds no requests"):
        Trace.read(write(tmp_path, f"{HEADER}\n0,0,4\n"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"timestamp": 1, "input_length": 3}', "no output_length"),
        ("[1]", "no JSON object"),
        ("{", "Expecting property name"),
        ('{"timestamp": true, "input_length": 3, "output_length": 4}', "timestamp is neither"),
        ('{"timestamp": 1, "input_length": [3], "output_length": 4}', "input_length '[3]' is not a whole number"),
        ('{"timestamp": 1, "input_length": 3, "output_length": 4, "hash_ids": [[]]}', "hash_ids are no list"),
        ('{"timestamp": 1, "input_length": 3, "output_length": 4, "hash_ids": 5}', "hash_ids are no list"),
    ],
)
def test_bad_json_line_is_named_by_number(tmp_path: Path, line: str, problem: str) -> None:
    file = write(tmp_path, f"{LINE.format(0, 3, 4)}\n{line}\n")
    with pytest.raises(InputError) as caught:
        Trace.read(file)
    assert str(caught.value).startswith(f"--trace: {file}, line 3: ")
    assert problem in str(caught.value)
