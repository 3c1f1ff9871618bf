"""Validates manifests against the JSON schema of the Kubernetes API. Unknown fields are errors.

    python3 tests/kubernetes.py FILE.yaml...

In KServe's resources it validates only the containers, as those of a pod. Needs the PyPI package
kubernetes-validate. Exit codes: 0 valid, 1 invalid, 3 the package is not installed.
"""

import sys

try:
    import kubernetes_validate
    import yaml
except ImportError as error:
    print(error)
    sys.exit(3)

# The first version without alpha features for these manifests, and the latest one.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]


def known(document):
    """Returns the document, or the part of a KServe document that Kubernetes' schema covers."""
    if not document["apiVersion"].startswith("serving.kserve.io/"):
        return [document]
    containers = document["spec"].get("containers")
    pod = {**document, "apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers}}
    return [pod] if containers else []


failed = False
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        documents = [part for whole in yaml.safe_load_all(file) for part in known(whole)]
    for document in documents:
        for version in VERSIONS:
            try:
                used = kubernetes_validate.validate(document, version, strict=True)
                print(f"{path}: {document['kind']} {document['metadata']['name']} fits {used}")
            except kubernetes_validate.ValidationError as error:
                failed = True
                print(f"{path}: {version}: {'.'.join(map(str, error.path))}: {error.message}")
sys.exit(failed)
