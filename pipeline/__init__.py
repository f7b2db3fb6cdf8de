"""The pipeline: reads `params.yaml`, calls the library, writes what `dvc.yaml` names."""
