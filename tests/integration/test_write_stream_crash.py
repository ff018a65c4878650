"""A server that is killed while it takes a stream: each batch is stored once, none that was acknowledged is lost."""

from helpers.durable import DurableStore
from helpers.launch import served
from helpers.streams import samples, stream_to
from helpers.waiting import eventually

from ccms_server.durability.damage import DamageLog
from ccms_server.durability.known_writes import decode_identified
from ccms_server.durability.sample_codec import IDENTIFIED_SAMPLES, decode
from ccms_server.durability.wal import Wal

START = 1_700_000_000 // 60 * 60
METRICS = {"load": {"frequency": 60}}
HOSTS = 50
KILLS = 8
BATCHES = 40
"""In each life of the server, one after another; it is killed before all of them are acknowledged."""


def batch(number, *, defines):
    """One sample of each host: minute and value are the number."""
    new = [(host, f"n{host}") for host in range(HOSTS)] if defines else ()
    return samples(range(HOSTS), [START + 60 * number], [float(number + host) for host in range(HOSTS)], new=new)


async def test_batches_that_are_sent_again_after_a_kill_are_stored_once(tmp_path):
    options = {"metrics": METRICS, "checkpoints": {"directory": str(tmp_path / "store"), "wal-bytes": 1 << 30}}
    acknowledged = 0
    for life in range(KILLS):
        async with served(tmp_path, **options) as server, stream_to(server.grpc_address) as stream:
            opened = await stream.open("collector", first_sequence=acknowledged + 1)
            assert opened.last_sequence >= acknowledged
            # Some clients skip what is stored, others send it again all the same.
            first = (opened.last_sequence if life % 2 else acknowledged) + 1
            for number in range(first, acknowledged + 1 + BATCHES):
                await stream.send(number, **batch(number, defines=number == first))
            await stream.until(max(acknowledged + 1 + 4 * life, first))
            server.process.kill()
            await stream.end()
            assert stream.acknowledged > acknowledged
            acknowledged = stream.acknowledged
    async with served(tmp_path, **options) as server, stream_to(server.grpc_address) as stream:
        last = (await stream.open("collector", first_sequence=acknowledged + 1)).last_sequence
        assert await server.terminate() == 0

    durable = DurableStore(tmp_path / "store", metrics=METRICS)
    try:
        assert last >= acknowledged
        expected = {START + 60 * number: number for number in range(1, last + 1)}
        for host in range(HOSTS):
            held = durable.samples("load", ("alex", f"n{host}"))
            assert held == {time: float(number + host) for time, number in expected.items()}
        assert wal_samples(tmp_path / "store") == last * HOSTS  # none was stored twice, not even with the same value
    finally:
        durable.close()


def wal_samples(directory):
    """Samples in all records of the WAL."""
    wal = Wal(directory / "cc-metric-store" / "wal", DamageLog(), segment_bytes=1 << 30, sync_seconds=None)
    payloads = [decode_identified(record.payload)[1] for record in wal.replay() if record.kind == IDENTIFIED_SAMPLES]
    return sum(len(decode(payload)[0]) for payload in payloads)


async def test_a_stream_is_known_after_the_log_was_cut_and_the_server_restarted(tmp_path):
    """Small segments: what is known of the stream is in the state file by then, not in the log."""
    options = {"metrics": METRICS, "checkpoints": {"directory": str(tmp_path / "store"), "wal-bytes": 1 << 20}}
    async with served(tmp_path, **options) as server, stream_to(server.grpc_address) as stream:
        await stream.open("collector", sequence=1, **batch(1, defines=True))
        await stream.until(1)

        def wal_files():
            return sorted(path.name for path in tmp_path.rglob("*.wal"))

        first = wal_files()
        payload = b"".join(
            b"load,cluster=alex,hostname=x%d value=%d.123456789 %d\n" % (host, minute, START + 60 * minute)
            for minute in range(400)
            for host in range(50)
        )

        async def is_cut():
            assert (await server.rest.write(payload)).status in (200, 503)  # 503: blocks are being written
            return first[0] not in wal_files()

        await eventually(is_cut, "the segment that the batch was logged in is deleted")
        server.process.kill()
    async with served(tmp_path, **options) as server, stream_to(server.grpc_address) as stream:
        assert (await stream.open("collector", first_sequence=1)).last_sequence == 1
