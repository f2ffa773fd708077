"""What a measured table gains: the same frames at other grey levels, drawn with and without it."""

import numpy as np
import pytest

from bench import site_tables
from bench.site_tables import SITES, Frames, Site, render, site_rows, stored


@pytest.fixture(scope="module")
def frames() -> Frames:
    return render(range(900, 902), 4, 256)


@pytest.mark.parametrize("site", SITES, ids=[site.name for site in SITES])
def test_a_site_keeps_the_order_of_grey_levels_or_turns_it_round(site: Site) -> None:
    ramp = np.linspace(0.0, 1.0, 1001, dtype=np.float32).reshape(7, 143)
    values = stored(site, ramp).astype(int)
    steps = np.diff(values.ravel()) * (-1 if "inverted" in site.name else 1)
    assert (steps >= 0).all()
    assert values.max() < 1 << site.bits_stored
    assert len(np.unique(values)) > 60


def test_the_measured_table_draws_where_the_default_one_does_not(
    frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        site_tables,
        "SITES",
        [site for site in SITES if site.name in ("as taught, 8 bits", "inverted, not said")],
    )
    taught, inverted = site_rows("compact", frames, frames, 256)
    assert (taught["site"], taught["polarity"], inverted["polarity"]) == (
        "as taught, 8 bits",
        "dark",
        "bright",
    )
    assert float(str(inverted["default"])) < 0.1
    # As good as the same frames the right way round.
    assert float(str(inverted["measured"])) == pytest.approx(float(str(taught["measured"])), abs=0.03)
    assert float(str(taught["measured"])) > 0.3
