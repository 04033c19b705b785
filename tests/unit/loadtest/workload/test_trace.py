import tracemalloc
from pathlib import Path

import pytest

from loadtest.input_error import InputError
from loadtest.workload.trace import Trace

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
        f"{HEADER}\n2024-05-10 00:00:00.5,3,4\n2024-05-10T02:00:02+02:00,5,6\n",
        f"\ufeff{HEADER}\n\n10.5,3,4\n\n12,5,6\n\n",
        "extra, generatedtokens ,Timestamp,CONTEXTTOKENS\nx,4,10.5,3\ny,6,12,5\n",
        'TIMESTAMP,ContextTokens,GeneratedTokens\n"10.5","3","4"\n"12","5","6"\n',
    ],
    ids=["seconds", "zones", "blank lines and byte order mark", "other order, case and columns", "quotes"],
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
        ("1.5,0,4", "ContextTokens 0 is out of range"),
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
        (b"\x1f\x8b\x08\xff\xfe", "is not UTF-8 text; give a CSV file, not compressed"),
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
