import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.synthetic import write_csv, write_run
from tinygrow.errors import TinygrowError
from tinygrow.report.history import EpochRow, ExtensionRow, History, read_json, read_table


def test_rows_are_read_back_with_empty_cells_as_nan(history: History) -> None:
    seed, first = history.growth[0], history.growth[1]
    assert (seed.extension, seed.depth, seed.widths) == (0, None, (4, 4, 8, 8))
    assert math.isnan(seed.bottleneck_before) and math.isnan(seed.train_loss)
    assert (first.depth, first.sweep, first.width_before, first.width_after) == (2, 1, 4, 7)
    assert history.depths == (2, 4, 7, 9)
    assert len(history.extensions) == 16


def test_totals_leave_out_what_does_not_apply(history: History) -> None:
    assert history.total("seconds_statistics") == 16 * 0.5
    assert history.growth_epochs == 4.0
    assert history.images_seen == 4000 + 10000


def test_training_costs_three_passes_at_the_width_of_the_time(make_history) -> None:
    short = make_history(depths=(2, 5), start=(1, 2), final=(2, 4), sweeps=1, finetune_epochs=2)
    # 250 image passes at widths 2 and 2, 250 at 2 and 4, 2,000 after that; 9,000 a unit of width.
    assert short.training_multiply_adds == 3 * 9000 * (250 * 4 + 250 * 6 + 2000 * 6)
    # It is those of training alone, whatever statistics looked at.
    still = make_history(method="none", sweeps=2, finetune_epochs=0)
    assert still.training_multiply_adds == 3 * 9000 * 24 * 2000


def test_a_run_that_never_grew_has_no_extensions(make_history) -> None:
    quiet = make_history(method="none")
    assert quiet.extensions == ()
    assert len(quiet.growth) == 17


def test_layers_are_counted_by_depth_where_each_was_visited(history: History) -> None:
    assert history.layers == ("depth", (2, 4, 7, 9))
    # A budget ended growth before the third site had its first visit.
    short = replace(history, growth=history.growth[:3])
    assert short.depths == (2, 4)
    assert short.layers == ("layer", (1, 2, 3, 4))
    # Training alone has no depth.
    waiting = replace(history.growth[1], depth=None, width_after=math.nan)
    assert len(replace(history, growth=(*history.growth, waiting)).extensions) == 16


def test_details_keep_their_spectrum_and_ignore_further_keys(history: History) -> None:
    detail = history.details[0]
    assert (detail.depth, detail.kept, len(detail.singular_values)) == (2, 3, 60)
    assert detail.amplitudes[0] == 0.0
    assert detail.chosen in detail.amplitudes


@pytest.mark.parametrize("missing", ["growth.csv", "growth.json", "finetune.csv"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    paths = write_run(tmp_path)
    paths[missing].unlink()
    with pytest.raises(TinygrowError, match=rf"{missing} does not exist; run the stage"):
        History.read("toy", paths["growth.csv"], paths["growth.json"], paths["finetune.csv"])


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write_run(tmp_path)["finetune.csv"]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [c for c in rows[0] if c != "validation_loss"]
    write_csv(path, columns, [{c: row[c] for c in columns} for row in rows])
    with pytest.raises(TinygrowError, match="lacks the columns validation_loss"):
        read_table(path, EpochRow)


def test_a_cell_that_is_no_number_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_run(tmp_path)["growth.csv"]
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace(",200,", ",many,")
    path.write_text("\n".join(lines))
    with pytest.raises(TinygrowError, match=r"growth.csv:3: statistics_images is 'many'"):
        read_table(path, ExtensionRow)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    paths["growth.csv"].write_text(paths["growth.csv"].read_text().splitlines()[0] + "\n")
    with pytest.raises(TinygrowError, match="has no rows"):
        History.read("toy", paths["growth.csv"], paths["growth.json"], paths["finetune.csv"])


def test_damaged_json_and_foreign_json_are_refused(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    paths["growth.json"].write_text('{"extensions": [')
    with pytest.raises(TinygrowError, match="is damaged"):
        read_json(paths["growth.json"])
    paths["growth.json"].write_text(json.dumps([1, 2]))
    with pytest.raises(TinygrowError, match="is not a growth log"):
        History.read("toy", paths["growth.csv"], paths["growth.json"], paths["finetune.csv"])
