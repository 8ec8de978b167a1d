import pytest

from treadle.ir.size import Size, fit, monomials, parse_size


def test_a_size_is_what_its_polynomial_comes_to():
    n, t = Size.of("N"), Size.of("T")
    size = n * t * 3 + n * -2 + 7
    assert size.at({"N": 5, "T": 11}) == 5 * 11 * 3 - 10 + 7
    assert size.names == {"N", "T"}


@pytest.mark.parametrize("text", ["N", "3*N*T - 2*N + 7", "-N", "1/2*N + 1/2", "N*N"])
def test_text_parses_back(text):
    size = parse_size(text)
    assert str(parse_size(str(size))) == str(size)
    assert parse_size(str(size)) == size


@pytest.mark.parametrize("text", ["", "+", "N**2", "1/0", "N/2", "3 N", "N -", "9" * 600, "é"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="got"):
        parse_size(text)


def test_a_fraction_must_come_to_a_whole_number():
    assert parse_size("1/2*N").at({"N": 4}) == 2
    with pytest.raises(ValueError, match=r"is 3/2 with N=3; it must be a whole number"):
        parse_size("1/2*N").at({"N": 3})


def test_fit_finds_polynomials_of_two_names_and_nothing_else():
    points = [{"N": n, "T": t} for n, t in ((1, 1), (2, 3), (3, 2), (5, 4), (7, 9), (4, 8), (9, 2))]
    assert len(points) > len(monomials(["N", "T"]))
    found = fit([p["N"] * p["T"] * 4 + p["T"] for p in points], points)
    assert str(found) == "4*N*T + T"
    assert fit([p["N"] // 2 for p in points], points) is None
    assert fit([3] * len(points), points) == 3
