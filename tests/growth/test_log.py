import csv
import io
import json

from tinygrow.growth.log import ExtensionCurves, ExtensionRow, curves_to_dict, rows_to_csv


def row(**changes: object) -> ExtensionRow:
    values: dict = {
        "extension": 0,
        "sweep": 0,
        "widths": (1, 2),
        "parameters": 10,
        "multiply_adds": 20,
        "validation_loss": 1.5,
        "validation_accuracy": 50.0,
        "epochs": 0.0,
        "images_seen": 0,
        "statistics_images": 0,
    }
    return ExtensionRow(**(values | changes))


def test_rows_become_a_table_with_empty_cells_where_nothing_applies() -> None:
    text = rows_to_csv([row(), row(extension=1, rejected=True, amplitude=0.0, depth=2)])

    seed, first = csv.DictReader(io.StringIO(text))
    assert seed["widths"] == "1 2"
    assert seed["depth"] == seed["bottleneck_before"] == seed["rejected"] == seed["sign"] == ""
    assert first["rejected"] == "1"
    assert float(first["amplitude"]) == 0.0
    assert first["depth"] == "2"


def test_a_training_without_a_step_leaves_empty_cells() -> None:
    (only,) = csv.DictReader(io.StringIO(rows_to_csv([row(train_loss=float("nan"))])))

    assert only["train_loss"] == ""


def test_the_columns_are_those_that_other_tools_read() -> None:
    header = rows_to_csv([]).strip().replace(",", " ")

    assert header == (
        "extension sweep depth site width_before width_after widths parameters multiply_adds"
        " bottleneck_before bottleneck_predicted bottleneck_after largest_singular_value"
        " singular_values_kept singular_values_dropped power_kept power_dropped sign amplitude"
        " rejected loss_before loss_after train_loss train_accuracy validation_loss"
        " validation_accuracy batch_size epochs images_seen statistics_images seconds_statistics"
        " seconds_solve seconds_search seconds_surgery seconds_training"
    )


def test_curves_become_plain_data() -> None:
    curves = ExtensionCurves(
        extension=1,
        depth=2,
        site="a",
        singular_values=(2.0, 1.0),
        kept=1,
        amplitudes=(0.0, 0.5),
        losses=(1.0, 0.9),
        chosen=0.5,
    )

    data = json.loads(json.dumps(curves_to_dict([curves])))

    assert data == {
        "extensions": [
            {
                "extension": 1,
                "depth": 2,
                "site": "a",
                "singular_values": [2.0, 1.0],
                "kept": 1,
                "amplitudes": [0.0, 0.5],
                "losses": [1.0, 0.9],
                "chosen": 0.5,
            }
        ]
    }
