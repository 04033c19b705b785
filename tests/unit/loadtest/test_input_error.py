from loadtest.input_error import InputError


def test_message_is_one_line_with_option_first() -> None:
    error = InputError("--trace", "two\nlines of  trouble", "mend it")
    assert str(error) == "--trace: two lines of trouble; mend it"
    assert error.option == "--trace"
