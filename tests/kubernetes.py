"""Validates manifests against the Kubernetes API's JSON schema, strictly: unknown fields are errors.

    python3 tests/kubernetes.py FILE.yaml...

Of KServe's resources the containers are validated, as those of a pod. Needs the PyPI package
kubernetes-validate. Exit codes: 0 valid, 1 not, 3 the package is not installed.
"""

import sys

try:
    import kubernetes_validate
    import yaml
except ImportError as error:
    print(error)
    sys.exit(3)

# The first version in which all that the manifests use is beyond alpha, and the latest known.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]


def known(document):
    """The document, or what of it Kubernetes itself knows."""
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
