"""What may be asked of a source."""

import math

import pytest

from stream.sources.options import SourceOptions, parse_crop


@pytest.mark.parametrize("rate_hz", [0.0, -15.0, math.nan, math.inf, -math.inf], ids=str)
def test_a_rate_that_no_clock_can_keep_is_refused(rate_hz):
    with pytest.raises(
        ValueError, match=rf"--rate must be a number of frames per second above 0, got {rate_hz}"
    ):
        SourceOptions(rate_hz=rate_hz)


@pytest.mark.parametrize("rate_hz", [7.5, 10.0, 15.0, 25.0, 30.0, 60.0], ids=str)
def test_the_rates_of_the_field_are_taken(rate_hz):
    assert SourceOptions(rate_hz=rate_hz).rate_hz == rate_hz


def test_a_crop_is_read_from_four_numbers():
    assert parse_crop("420,0,1080,1080") == (420, 0, 1080, 1080)
    assert parse_crop(" 1, 2, 3, 4 ") == (1, 2, 3, 4)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,0,10,10"], ids=repr)
def test_a_crop_that_is_not_four_whole_numbers_is_refused(text):
    with pytest.raises(
        ValueError, match=r"--crop must be x,y,w,h in pixels, got .*; for example 420,0,1080,1080"
    ):
        parse_crop(text)


@pytest.mark.parametrize("text", ["-1,0,10,10", "0,-1,10,10", "0,0,0,10", "0,0,10,-10"])
def test_a_crop_with_a_negative_corner_or_no_area_is_refused(text):
    with pytest.raises(ValueError, match=f"--crop must be x,y,w,h with x and y from 0 .*got {text}"):
        parse_crop(text)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"crop": (0, 0, 0, 5)}, "--crop must be"),
        ({"width": 640}, "--width and --height go together"),
        ({"width": 0, "height": 480}, "--width must be a number of pixels from 1, got 0"),
        ({"size": 0}, "--size must be a number of pixels from 1, got 0"),
        ({"bits": 7}, "--bits must be 8 to 16 bits stored, got 7"),
        ({"bits": 17}, "--bits must be 8 to 16 bits stored, got 17"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_value_that_no_source_could_follow_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        SourceOptions(**asked)


def test_a_luma_range_that_is_none_is_refused():
    # a site file can hold any text; under the runtime type check of the test suite that check comes first
    with pytest.raises(
        (ValueError, TypeError), match=r"--luma must be auto, limited or full, got 'wide'|'luma'"
    ):
        SourceOptions(luma="wide")
