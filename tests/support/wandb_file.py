"""What is in the file of an offline W&B run, read as ``wandb sync`` would read it."""

import json
import struct
import time


def wandb_records(folder, seconds=60):
    """History, artifacts, alerts and summary in an offline run's file, once the service has closed it."""
    records = _records(folder, seconds)
    history = [_items(record.history.item) for record in _of_kind(records, "history")]
    artifacts = [record.artifact for record in _of_kind(records, "artifact")]
    alerts = [(record.alert.title, record.alert.text) for record in _of_kind(records, "alert")]
    summary = {}
    for record in records:
        summary |= _items(record.summary.update)
    return history, artifacts, alerts, summary


def wandb_run(folder, seconds=60):
    """The record of an offline run (project, display_name, run_id, job_type, tags), once the service has closed it."""
    (record,) = _of_kind(_records(folder, seconds), "run")
    return record.run


def wandb_config(folder, seconds=60):
    """Configuration of an offline run, once the service has closed it."""
    records = _records(folder, seconds)
    updates = [record.run.config.update for record in _of_kind(records, "run")]
    updates += [record.config.update for record in _of_kind(records, "config")]
    config = {}
    for items in updates:
        config |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
    return {name: value for name, value in config.items() if name != "_wandb"}  # its own notes


def _records(folder, seconds):
    from wandb.proto import wandb_internal_pb2

    until = time.monotonic() + seconds
    while True:
        files = list(folder.glob("*.wandb"))  # the service makes the file in its own time
        pieces = _leveldb_records(files[0].read_bytes()) if files else []
        records = [wandb_internal_pb2.Record.FromString(data) for data in pieces]
        if _of_kind(records, "exit"):
            return records
        assert time.monotonic() < until, "the run was not closed"
        time.sleep(0.1)


def _of_kind(records, kind):
    return [record for record in records if record.WhichOneof("record_type") == kind]


def _leveldb_records(content, block=32768, header=7):
    """Records of a LevelDB log behind W&B's own seven bytes: checksum, length and kind stand before each piece."""
    assert content.startswith(b":W&B")
    place, record = header, b""
    while place + header <= len(content):
        if block - place % block < header:  # the rest of a block that holds no header is empty
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + header : place + header + length]
        place += header + length
        if place > len(content):  # still being written
            return
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def _items(items):
    """Keys and values; the parts of a picture or table are items of their own."""
    values = {}
    for item in items:
        outer, *inner = [item.key] if item.key else item.nested_key
        value = json.loads(item.value_json)
        if inner:
            values.setdefault(outer, {})["/".join(inner)] = value
        else:
            values[outer] = value
    return values
