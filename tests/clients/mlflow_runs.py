"""Prints the runs of an experiment as JSON, read with MLflow's own client.

    python mlflow_runs.py URL EXPERIMENT
    python mlflow_runs.py URL --check

[{"name", "status", "params", "tags", "metrics": {name: [[step, value], ...]}, "files"}, ...];
--check only tests whether the server responds.
"""

import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

url, experiment = sys.argv[1:]
if experiment == "--check":
    with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
        print(json.dumps(answer.status))
    sys.exit()

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
from mlflow import MlflowClient  # noqa: E402


def described(client, run):
    run_id = run.info.run_id
    with tempfile.TemporaryDirectory() as folder:
        files = {
            file.path: Path(client.download_artifacts(run_id, file.path, folder)).read_text()
            for file in client.list_artifacts(run_id)
        }
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            name: [[point.step, point.value] for point in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "files": files,
    }


client = MlflowClient(url)
found = client.get_experiment_by_name(experiment)
runs = client.search_runs([found.experiment_id])
json.dump([described(client, run) for run in runs], sys.stdout)
