from loadtest.input_error import InputError


def test_a_message_is_one_line_that_begins_with_the_option() -> None:
    error = InputError("--trace", "two\nlines of  trouble", "mend it")
    assert str(error) == "--trace: two lines of trouble; mend it"
    assert error.option == "--trace"
