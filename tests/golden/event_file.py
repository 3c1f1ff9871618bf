"""Writes event_file.tfevents: the scalars of one epoch, encoded by TensorBoard's own writer.

    python tests/golden/event_file.py

Generated with tensorboard 2.21.0, protobuf 7.36.2. Nothing is random.
"""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter

SCALARS = {
    "loss/train": 0.25,
    "loss/validation": 0.1,
    "f1/mean": 0.4382,
    "f1/std": 0.3,
    "f1/min": 0.0,
    "f1/max": 1.0,
    "learning_rate": 1e-4,
    "time/seconds": 81.5,
    "time/images_per_s": 12.25,
    "time/waited": 0.5,
}


def main():
    version = Event(wall_time=1_500_000_000.25, step=0, file_version="brain.Event:2")
    start = Event(
        wall_time=1_500_000_000.25, step=300, session_log=SessionLog(status=SessionLog.START)
    )
    epoch = Event(wall_time=1_500_000_060.5, step=300)
    for tag, value in SCALARS.items():
        epoch.summary.value.add(tag=tag, simple_value=value)
    with Path(__file__).with_suffix(".tfevents").open("wb") as file:
        writer = RecordWriter(file)
        for event in (version, start, epoch):
            writer.write(event.SerializeToString(deterministic=True))
        writer.flush()


if __name__ == "__main__":
    main()
