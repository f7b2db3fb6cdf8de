"""Where each stage writes, relative to the folder of `params.yaml`; `dvc.yaml` names the same."""

from pathlib import Path

BENCHMARK = "benchmark.json"


def prepared(data: str) -> Path:
    """Prepared images of a data set, from `download`."""
    return Path("data", f"{data}.safetensors")


def model_folder(model: str) -> Path:
    """Everything a user may want of a model."""
    return Path("models", model)


def grown(model: str) -> Path:
    """Checkpoint after growth, from `grow`."""
    return model_folder(model) / "grown.safetensors"


def snapshots(model: str) -> Path:
    """Folder of checkpoints, one an extension, from `grow`; empty unless asked for."""
    return model_folder(model) / "snapshots"


def growth_details(model: str) -> Path:
    """Spectra and line searches of every extension (JSON), from `grow`."""
    return model_folder(model) / "growth.json"


def connectivity(model: str) -> Path:
    """How the network is wired, before it grows (JSON), from `grow`."""
    return model_folder(model) / "connectivity.json"


def growth_table(model: str) -> Path:
    """One row an extension (CSV), from `grow`."""
    return metrics_folder(model) / "growth.csv"


def growth_metrics(model: str) -> Path:
    """Flat figures (JSON) from `grow`."""
    return metrics_folder(model) / "grow.json"


def finetuned(model: str) -> Path:
    """Checkpoint after fine-tuning, from `finetune`."""
    return model_folder(model) / "finetuned.safetensors"


def finetune_table(model: str) -> Path:
    """One row an epoch (CSV), from `finetune`."""
    return metrics_folder(model) / "finetune.csv"


def finetune_metrics(model: str) -> Path:
    """Flat figures (JSON) from `finetune`."""
    return metrics_folder(model) / "finetune.json"


def compressed(model: str) -> Path:
    """Checkpoint that is exported: folded, and without what provably never matters."""
    return model_folder(model) / "compressed.safetensors"


def uncompressed(model: str) -> Path:
    """The network before `compress`, as ONNX: what the certificate compares with."""
    return model_folder(model) / "uncompressed.onnx"


def certificate(model: str) -> Path:
    """What was proved, and what was done about it (JSON), from `compress`."""
    return model_folder(model) / "certificate.json"


def compress_metrics(model: str) -> Path:
    """Flat figures (JSON) from `compress`."""
    return metrics_folder(model) / "compress.json"


def exported_folder(model: str) -> Path:
    """Candidates, one ONNX file a precision, from `export`."""
    return model_folder(model) / "exported"


def exported(model: str, precision: str = "fp32") -> Path:
    """One candidate; the gate decides whether it becomes a product."""
    return exported_folder(model) / f"{precision}.onnx"


def export_failures(model: str) -> Path:
    """Why candidates could not be made (JSON), from `export`; there is none where all were."""
    return exported_folder(model) / "failures.json"


def products_folder(model: str) -> Path:
    """The products that passed the gate, and a sidecar for each candidate, from `validate`."""
    return model_folder(model) / "products"


def product(model: str, precision: str = "fp32") -> Path:
    """One product; there is none where the gate refused it."""
    return products_folder(model) / f"{precision}.onnx"


def export_metrics(model: str) -> Path:
    """Flat figures (JSON) from `export`."""
    return metrics_folder(model) / "export.json"


def sidecar(model: str, precision: str = "fp32") -> Path:
    """What the gate says of a candidate (JSON), from `validate`; also of one that it refused."""
    return products_folder(model) / f"{precision}.json"


def validation(model: str) -> Path:
    """Every check's numbers (JSON), from `validate`."""
    return metrics_folder(model) / "validate.json"


def report_folder(model: str) -> Path:
    """The page and its pictures, from `report`."""
    return Path("reports", model)


def report_page(model: str) -> Path:
    """The page itself."""
    return report_folder(model) / "index.html"


def report_samples(model: str) -> Path:
    """A few test images to try `predict` on."""
    return report_folder(model) / "samples"


def summary(model: str) -> Path:
    """Flat figures (JSON) of the whole way, from `report`."""
    return metrics_folder(model) / "summary.json"


def benchmark_folder(model: str) -> Path:
    """Speed of the products as JSON, CSV and picture, from `benchmark`; no stage makes it."""
    return metrics_folder(model) / "benchmark"


def benchmark(model: str) -> Path:
    """The JSON file of it, which the report and the model card tell of where it is."""
    return benchmark_folder(model) / BENCHMARK


def package_folder(model: str) -> Path:
    """What users take away, from `package`; beside it lies the same as .tar.gz."""
    return Path("packages", model)


def metrics_folder(model: str) -> Path:
    """Small files that live in git: figures and tables."""
    return Path("metrics", model)
