"""Prints the scalars in a folder of event files as JSON, read with TensorBoard's own library.

    python tensorboard_scalars.py FOLDER

{"tag": [[step, value], ...], ...}; exit code 3 if the library is not installed.
"""

import json
import sys

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
scalars = {
    tag: [[event.step, event.value] for event in events.Scalars(tag)]
    for tag in events.Tags()["scalars"]
}
json.dump(scalars, sys.stdout)
