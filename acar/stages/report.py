"""Write the self-contained page on a run, from whatever the run has left so far."""

from __future__ import annotations

from acar.config import Config
from acar.files import write_text_atomic
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths
from acar.report.collect import collect
from acar.report.page import render


def run(config: Config) -> None:
    """Write `report/report.html`; parts that are missing become a sentence on the page."""
    page, origin = Paths.of(config).report, origin_of(config, "report")
    write_text_atomic(page, render(collect(config)))
    write_origin(page.parent, origin)
