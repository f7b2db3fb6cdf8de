from tests.report.test_page import page_data
from tinygrow.benchmark.document import speed_table
from tinygrow.report.history import History
from tinygrow.report.page import render_page
from tinygrow.report.pictures import Picture


def test_the_report_tells_the_medians_of_these_products(
    history: History, pictures: list[Picture]
) -> None:
    table = speed_table(
        [
            {"engine": "pytorch", "variant": "eager", "device": "cpu", "batch": 64, "runs": 200}
            | {"p50_ms": 2.5, "images_per_second": 25600.0}
        ]
    )
    data = page_data(history, pictures, speed=table, speed_machine="a <quick> one")
    page = render_page(data)
    assert '<td>PyTorch</td><td>eager</td><td>cpu</td><td class="num">2.50</td>' in page
    assert '<td class="num">25,600</td>' in page
    assert "a &lt;quick&gt; one" in page
    assert "<h3>Benchmark</h3>" not in render_page(page_data(history, pictures))
