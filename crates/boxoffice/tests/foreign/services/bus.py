"""What both services share: they read requests and send each reply twice, as if the network had repeated it.

Written from /asyncapi.json. They read and send no headers and use the record key as the message's identity. Commands
come on standard input, one per line, and each is answered on standard output.
"""

import json
import queue
import sys
import threading
import uuid
from datetime import datetime

from kafka import KafkaConsumer, KafkaProducer

BROKERS, PREFIX = sys.argv[1:3]
commands = queue.Queue()
seen = set()
producer = KafkaProducer(bootstrap_servers=BROKERS, acks="all", retries=5)


def send(topic, value, times=1):
    """Sends with random keys, so that Boxoffice sees different messages."""
    for _ in range(times):
        key = str(uuid.uuid4()).encode()
        producer.send(PREFIX + topic, key=key, value=json.dumps(value).encode())
    producer.flush()


def now():
    """Local time nine hours ahead of UTC, with nine fractional digits and without a zone."""
    local = datetime.utcfromtimestamp(datetime.now().timestamp() + 9 * 3600)
    return local.isoformat(timespec="microseconds") + "789"


def read_commands():
    for line in sys.stdin:
        commands.put(line.split())
    commands.put(["end"])


def serve(group, handlers, command):
    """Handles requests and commands one after the other until standard input ends."""
    consumer = KafkaConsumer(
        *[PREFIX + topic for topic in handlers],
        bootstrap_servers=BROKERS,
        group_id=PREFIX + group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    threading.Thread(target=read_commands, daemon=True).start()
    print("ready", flush=True)
    while True:
        for records in consumer.poll(timeout_ms=50).values():
            for record in records:
                identity = uuid.UUID(record.key.decode())
                if identity not in seen:
                    seen.add(identity)
                    topic = record.topic[len(PREFIX):]
                    handlers[topic](json.loads(record.value))
        consumer.commit()
        while not commands.empty():
            words = commands.get()
            if words == ["end"]:
                return
            print(json.dumps(command(*words)), flush=True)
