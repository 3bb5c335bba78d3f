import errno
import itertools

import pytest

from oomguard.model import Reading, Status
from oomguard.sources.reading import Absent, Failed, Unsupported, read


def raiser(error):
    def fn():
        raise error

    return fn


def test_a_value_is_ok_and_takes_the_time_between_two_looks_at_the_clock():
    clock = itertools.count(10, 5)
    assert read(lambda: 7, clock=lambda: next(clock)) == Reading(Status.OK, 7, seconds=5)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Absent("no limit"), Status.ABSENT),
        (Unsupported("no PSI"), Status.UNSUPPORTED),
        (Failed("no"), Status.FAILED),
    ],
)
def test_each_exception_becomes_its_status(error, status):
    reading = read(raiser(error))
    assert (reading.status, reading.value, reading.reason) == (status, None, str(error))


def test_an_os_error_names_the_path_and_the_kernels_text_on_one_lower_case_line():
    error = PermissionError(errno.EACCES, "Permission denied", "/proc/1/smaps")
    assert read(raiser(error)).reason == "can't read /proc/1/smaps: permission denied"


def test_an_os_error_of_a_descriptor_has_a_reason_without_a_path():
    assert read(raiser(OSError(errno.ENODEV, "No such device"))).reason == "no such device"


def test_malformed_data_fails_with_a_single_line():
    reading = read(raiser(ValueError("a\nb")))
    assert (reading.status, reading.reason) == (Status.FAILED, "a b")


def test_a_programming_error_is_not_hidden():
    with pytest.raises(KeyError):
        read(raiser(KeyError("x")))
