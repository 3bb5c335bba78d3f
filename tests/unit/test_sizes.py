import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomguard.sizes import Threshold, format_size, megabytes, parse_size, parse_threshold


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 << 20),
        ("512MB", 512_000_000),
        ("0.5GiB", 512 << 20),
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("2g", 2 << 30),
        (" 64 KiB ", 64 << 10),
        ("1048576", 1 << 20),
        ("10b", 10),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "512XB", "-1MiB", "0", "0.0001k", "1e9", "512 MiB!", "80%"])
def test_what_is_not_a_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="512MiB") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@given(st.integers(min_value=1, max_value=1 << 50))
def test_a_number_of_bytes_is_itself(size):
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        ("0.9", Threshold(ratio=0.9)),
        (0.9, Threshold(ratio=0.9)),
        ("90%", Threshold(ratio=0.9)),
        ("1", Threshold(ratio=1.0)),
        ("100%", Threshold(ratio=1.0)),
        ("4.5GB", Threshold(size=4_500_000_000)),
        ("471859200", Threshold(size=450 << 20)),
    ],
)
def test_a_threshold_is_a_ratio_a_percentage_or_a_size(text, threshold):
    assert parse_threshold(text) == threshold


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-0.5", "nearly full", "", "nan"])
def test_what_is_not_a_threshold_is_refused(text):
    with pytest.raises(ValueError, match=r"0\.9"):
        parse_threshold(text)


def test_a_bare_number_that_nobody_means_as_bytes_is_refused():
    with pytest.raises(ValueError, match="write 80% or 80MiB"):
        parse_threshold("80")
    with pytest.raises(ValueError, match="write 450MiB"):
        parse_threshold(450)


def test_a_threshold_above_the_limit_counts_as_the_limit():
    assert Threshold(size=600).of(512) == 512
    assert Threshold(ratio=0.5).of(512) == 256


def test_sizes_are_shown_in_binary_units():
    assert [format_size(size) for size in (0, 1023, 1024, 214 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "214.0 MiB",
        "3.00 GiB",
    ]
    assert megabytes(1684 << 20) == "1684 MB"


@pytest.mark.parametrize("number", [10**400, "9" * 400, "9" * 400 + "GB", 1 << 63], ids=range(4))
def test_a_number_beyond_all_memory_is_refused_as_any_other_mistake(number):
    with pytest.raises(ValueError, match="512MiB"):
        parse_size(number)
    with pytest.raises(ValueError, match=r"0\.9"):
        parse_threshold(number)
