"""The tracer's books, fed by hand and held against the oracle; every counter and every bound."""

from __future__ import annotations

import errno
import random

import pytest
from block_oracle import Block, Blocks
from trace_records import block_event, recording, stack_event, thread_event

from mwtrace.capi import ffi, lib

LIMITS = {
    "blocks_max": 1000,
    "ranges_max": 100,
    "stacks_max": 100,
    "words_max": 1000,
    "sites_max": 50,
    "processes_max": 4,
    "rows_max": 60,
}
SECOND = 10**9


class Tracer:
    def __init__(self, **limits):
        pointer = ffi.new("struct mw_tracer **")
        given = ffi.new("struct mw_tracer_limits *", {**LIMITS, **limits})
        assert lib.mw_tracer_create(given, pointer) == 0
        self.pointer = ffi.gc(pointer[0], lib.mw_tracer_destroy)
        self.now_s = 0

    def take(self, *records):
        for record in records:
            lib.mw_tracer_take(self.pointer, record, len(record))

    def table(self, order=None, pid=0, now_s=None):
        self.now_s = self.now_s + 1 if now_s is None else now_s
        out = ffi.new("struct mw_tracer_table **")
        order = lib.MW_ORDER_LIVE if order is None else order
        assert lib.mw_tracer_table(self.pointer, self.now_s * SECOND, pid, order, out) == 0
        return out[0]

    def counters(self):
        return self.table().counters

    def sites(self, order=None, pid=0):
        table = self.table(order, pid)
        return [table.sites[i] for i in range(table.site_count)]

    def process(self, pid):
        table = self.table(pid=pid)
        assert table.process_count == 1
        return table.processes[0]

    def blocks(self, pid=0, since_ns=0, until_ns=2**64 - 1):
        cursor, blocks = ffi.new("uint32_t *"), ffi.new("struct mw_block[]", 5000)
        count = lib.mw_tracer_survivors(self.pointer, pid, since_ns, until_ns, cursor, blocks, 5000)
        return blocks, count

    def settle(self, states, is_final=True):
        """Answer for blocks by address; the others stay."""
        blocks, count = self.blocks()
        for i in range(count):
            blocks[i].state = states.get(blocks[i].address, lib.MW_SETTLED_NOT)
        return lib.mw_tracer_settle(self.pointer, blocks, count, is_final)


def alloc(address, size_bytes=100, pid=1, **fields):
    return block_event(lib.MW_BLOCK_ALLOC, pid, address, size_bytes, **fields)


def free(address, pid=1, time_ns=SECOND, **fields):
    return block_event(lib.MW_BLOCK_FREE, pid, address, time_ns=time_ns, **fields)


def ranged(kind, address, size_bytes, pid=1, **fields):
    return block_event(kind, pid, address, size_bytes, domain=lib.MW_DOMAIN_MAP, **fields)


def live_bytes(row):
    return row.allocated.weight_bytes - row.freed.weight_bytes


def test_random_events_agree_with_the_oracle_block_by_block_and_site_by_site():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    tracer, oracle = Tracer(sites_max=300, rows_max=301), Blocks()
    for step in range(100, 8000):
        pid, address = rng.choice([1, 2, 3]), rng.randrange(1, 400) * 16
        site = (rng.choice([1, 2, 3, 4]), rng.randrange(6), rng.randrange(4))
        if rng.random() < 0.55:
            size_bytes, weight_bytes = rng.randrange(0, 500), rng.randrange(1, 5000)
            fields = {"domain": site[0], "native_stack": site[1], "python_stack": site[2]}
            tracer.take(
                alloc(address, size_bytes, pid, weight_bytes=weight_bytes, time_ns=step, **fields)
            )
            oracle.add(pid, address, Block(size_bytes, weight_bytes, step, (pid, *site)))
        elif rng.random() < 0.995:
            time_ns = step - rng.choice([0, 0, 50])
            tracer.take(free(address, pid, time_ns))
            oracle.free(pid, address, time_ns)
        else:
            lib.mw_tracer_forget(tracer.pointer, pid)
            oracle.forget(pid)
    counters = tracer.counters()
    for name, expected in oracle.counters.items():
        assert getattr(counters, name) == expected, name
    assert counters.block_count == len(oracle.live)
    expected = {}
    for block in oracle.live.values():
        blocks, size, weight = expected.get(block.site, (0, 0, 0))
        expected[block.site] = (blocks + 1, size + block.size_bytes, weight + block.weight_bytes)
    found = {
        (row.pid, row.domain, row.native_stack, row.python_stack): (
            row.allocated.blocks - row.freed.blocks,
            row.allocated.bytes - row.freed.bytes,
            live_bytes(row),
        )
        for row in tracer.sites()
    }
    assert {key: value for key, value in found.items() if value[0]} == expected
    for pid in {key[0] for key in oracle.live}:
        process = tracer.process(pid)
        weight = sum(
            process.allocated[d].weight_bytes - process.freed[d].weight_bytes for d in range(6)
        )
        assert weight == sum(b.weight_bytes for (p, _), b in oracle.live.items() if p == pid)


def test_every_allocation_ends_in_exactly_one_count_even_when_the_table_is_full():
    tracer, rng = Tracer(blocks_max=50, processes_max=2), random.Random(7)
    for step in range(3000):
        pid, address = rng.choice([1, 2, 3]), rng.randrange(1, 200) * 16
        if rng.random() < 0.6:
            tracer.take(alloc(address, pid=pid, time_ns=step + 1))
        else:
            tracer.take(free(address, pid, step + 1))
    tracer.settle({n * 16: lib.MW_SETTLED_FREED for n in range(40)})
    lib.mw_tracer_forget(tracer.pointer, 1)
    c = tracer.counters()
    assert c.untracked_blocks_total > 0
    assert c.processes_refused_total > 0
    assert c.allocated_total == (
        c.block_count
        + c.freed_total
        + c.missed_frees_total
        + c.untracked_blocks_total
        + c.settled_freed_total
        + c.forgotten_blocks_total
    )


def test_a_weighted_sample_stands_for_weight_over_size_blocks():
    tracer = Tracer()
    tracer.take(alloc(16, 100, weight_bytes=1000), alloc(32, 0, weight_bytes=0))
    (site,) = tracer.sites()
    assert (site.allocated.blocks, site.allocated.bytes) == (2, 100)
    assert (site.allocated.weight_bytes, site.allocated.weight_blocks) == (1000, 11.0)


def test_a_free_of_an_unknown_block_is_counted_and_changes_nothing():
    tracer = Tracer()
    tracer.take(alloc(16), free(32), free(16, pid=2))
    counters = tracer.counters()
    assert (counters.unmatched_frees_total, counters.block_count) == (2, 1)


def test_a_free_older_than_the_block_means_the_one_before():
    tracer = Tracer()
    tracer.take(alloc(16, time_ns=50), free(16, time_ns=49))
    assert tracer.counters().stale_frees_total == 1
    assert tracer.blocks()[1] == 1


def test_an_address_returned_twice_credits_the_first_site():
    tracer = Tracer()
    tracer.take(alloc(16, 10, native_stack=1), alloc(16, 20, native_stack=2))
    first, second = sorted(tracer.sites(), key=lambda row: row.native_stack)
    assert (live_bytes(first), live_bytes(second)) == (0, 20)
    assert first.freed.blocks == 1


def test_sites_past_the_bound_are_counted_namelessly_and_let_go():
    tracer = Tracer(sites_max=2)
    tracer.take(*[alloc(n * 16, 10, native_stack=n) for n in range(1, 6)])
    counters = tracer.counters()
    assert (counters.sites_refused_total, counters.site_count) == (3, 2)
    other = [row for row in tracer.sites() if row.site == lib.MW_SITE_OTHER]
    assert [live_bytes(row) for row in other] == [30]
    tracer.take(ranged(lib.MW_BLOCK_MAP, 4096, 4096, native_stack=9))
    lib.mw_tracer_forget(tracer.pointer, 1)
    assert [live_bytes(row) for row in tracer.sites()] == [0]


def test_a_forgotten_process_leaves_no_block_site_stack_or_row():
    tracer = Tracer()
    for pid in (1, 2):
        tracer.take(stack_event(pid, 5, [1, 2]), alloc(16, pid=pid, native_stack=5))
        tracer.take(ranged(lib.MW_BLOCK_MAP, 4096, 8192, pid=pid))
    lib.mw_tracer_forget(tracer.pointer, 1)
    counters = tracer.counters()
    assert (counters.forgotten_blocks_total, counters.forgotten_ranges_total) == (1, 1)
    assert (counters.site_count, counters.stack_count, counters.process_count) == (2, 1, 1)
    assert {row.pid for row in tracer.sites()} == {2}
    assert lib.mw_tracer_stack(tracer.pointer, 1, 5) == ffi.NULL
    assert lib.mw_tracer_stack(tracer.pointer, 2, 5).word_count == 2
    lib.mw_tracer_forget(tracer.pointer, 77)


def test_mappings_are_freed_in_parts_and_keep_their_site():
    tracer = Tracer()
    tracer.take(ranged(lib.MW_BLOCK_MAP, 0x1000, 0x4000, native_stack=3))
    tracer.take(ranged(lib.MW_BLOCK_UNMAP, 0x2000, 0x1000))
    (site,) = tracer.sites()
    assert (site.native_stack, live_bytes(site)) == (3, 0x3000)
    tracer.take(ranged(lib.MW_BLOCK_UNMAP, 0x9000, 0x1000))
    tracer.take(ranged(lib.MW_BLOCK_MAP, 0x1000, 0x1000, native_stack=4))
    counters = tracer.counters()
    assert (counters.mapped_total, counters.unmapped_total) == (2, 1)
    assert (counters.unmatched_unmaps_total, counters.missed_unmaps_total) == (1, 1)


def test_ranges_past_the_bound_are_counted():
    tracer = Tracer(ranges_max=1)
    tracer.take(ranged(lib.MW_BLOCK_MAP, 0x1000, 0x3000))
    tracer.take(ranged(lib.MW_BLOCK_MAP, 0x8000, 0x1000))
    tracer.take(ranged(lib.MW_BLOCK_UNMAP, 0x2000, 0x1000))
    counters = tracer.counters()
    assert counters.untracked_ranges_total == 2
    assert counters.untracked_bytes_total == 0x2000
    assert sum(live_bytes(row) for row in tracer.sites()) == 0x1000


def test_growth_is_kept_apart_from_blocks():
    tracer = Tracer()
    tracer.take(block_event(lib.MW_BLOCK_GROWTH, 1, 0x1000, 4096, weight_bytes=409600))
    (site,) = tracer.sites(lib.MW_ORDER_GROWN)
    assert (site.grown.blocks, site.grown.weight_bytes) == (1, 409600)
    assert live_bytes(site) == 0
    assert tracer.counters().growths_total == 1


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\1\0\0",
        bytes(64),
        alloc(16)[:-1],
        alloc(16) + b"\0",
        alloc(16, pid=0),
        alloc(0),
        alloc(16, domain=0),
        alloc(16, domain=6),
        block_event(0, 1, 16, 10),
        block_event(6, 1, 16, 10),
        block_event(lib.MW_BLOCK_MAP, 1, 16, 10),
        stack_event(1, 0, [1]),
        stack_event(1, 1, []),
        stack_event(0, 1, [1]),
        stack_event(1, 1, [1], kind=9),
        stack_event(1, 1, [1, 2, 3], frame_count=4),
        stack_event(1, 1, [1, 2], frame_count=65535),
        thread_event(1, 2)[:-4],
    ],
    ids=lambda record: f"{len(record)} bytes",
)
def test_what_is_no_record_is_counted_and_not_taken(record):
    tracer = Tracer()
    tracer.take(record)
    counters = tracer.counters()
    assert (counters.records_total, counters.records_refused_total) == (1, 1)
    assert (counters.block_count, counters.stack_count, counters.range_count) == (0, 0, 0)


def test_stacks_are_kept_refused_and_told_apart():
    tracer = Tracer(stacks_max=2)
    python = stack_event(1, 2, [0x10, 1, 0x20, 2], kind=lib.MW_STACK_PYTHON, truncated=1)
    tracer.take(stack_event(1, 1, [7, 8]), python, stack_event(1, 3, [9]), stack_event(1, 1, [6]))
    stack = lib.mw_tracer_stack(tracer.pointer, 1, 2)
    assert (stack.kind, stack.word_count, stack.truncated) == (lib.MW_STACK_PYTHON, 4, 1)
    counters = tracer.counters()
    assert counters.stacks_total == 4
    assert (counters.stacks_refused_total, counters.stacks_collided_total) == (1, 1)
    assert lib.mw_tracer_stack(tracer.pointer, 1, 0) == ffi.NULL


def test_requests_for_thread_lists_are_handed_out_once():
    tracer = Tracer()
    tracer.take(*[thread_event(1, n) for n in range(70)])
    requests = ffi.new("struct mw_thread_event[]", 100)
    assert lib.mw_tracer_thread_requests(tracer.pointer, requests, 3) == 3
    assert [requests[i].thread_pointer for i in range(3)] == [0, 1, 2]
    assert lib.mw_tracer_thread_requests(tracer.pointer, requests, 100) == 61
    assert requests[0].thread_pointer == 3
    assert tracer.counters().threads_asked_total == 70


def test_an_audit_that_finds_blocks_freed_credits_their_sites():
    tracer = Tracer()
    tracer.take(alloc(16, 10, native_stack=1), alloc(32, 10, native_stack=2), alloc(48, 5))
    answers = {16: lib.MW_SETTLED_FREED, 32: lib.MW_SETTLED_ALIVE, 48: lib.MW_SETTLED_UNKNOWN}
    assert tracer.settle(answers) == 3
    rows = {row.native_stack: row for row in tracer.sites()}
    assert (live_bytes(rows[1]), rows[1].survived.blocks) == (0, 0)
    assert (live_bytes(rows[2]), rows[2].survived.weight_bytes) == (10, 10)
    assert (live_bytes(rows[0]), rows[0].survived.blocks) == (5, 0)
    counters = tracer.counters()
    assert counters.settled_alive_total == 1
    assert counters.settled_freed_total == 1
    assert counters.settled_unknown_total == 1


def test_a_survivor_that_dies_later_is_no_survivor():
    tracer = Tracer()
    tracer.take(alloc(16, 10), alloc(32, 10), alloc(48, 10), alloc(64, 10))
    everyone = dict.fromkeys((16, 32, 48, 64), lib.MW_SETTLED_ALIVE)
    tracer.settle(everyone)
    tracer.settle(everyone)
    tracer.take(free(16), alloc(32, 10))
    tracer.settle({48: lib.MW_SETTLED_FREED, 64: lib.MW_SETTLED_UNKNOWN})
    (site,) = tracer.sites()
    assert (site.survived.blocks, site.survived.weight_bytes) == (1, 10)
    assert tracer.process(1).survived[lib.MW_DOMAIN_NATIVE].weight_bytes == 10
    assert live_bytes(site) == 20


def test_a_first_look_remembers_contents_and_counts_no_survivor():
    tracer = Tracer()
    tracer.take(alloc(16, 10), alloc(32, 10))
    blocks, count = tracer.blocks()
    for i in range(count):
        blocks[i].state = lib.MW_SETTLED_ALIVE
        blocks[i].fingerprint[0] = 77
    assert lib.mw_tracer_settle(tracer.pointer, blocks, count, False) == 2
    assert tracer.sites()[0].survived.blocks == 0
    assert {block.fingerprint[0] for block in tracer.blocks()[0][0:2]} == {77}
    tracer.settle({16: lib.MW_SETTLED_FREED}, is_final=False)
    tracer.settle({32: lib.MW_SETTLED_ALIVE})
    (site,) = tracer.sites()
    assert (site.survived.blocks, live_bytes(site)) == (1, 10)


def test_an_answer_for_a_block_replaced_since_is_left_alone():
    tracer = Tracer()
    tracer.take(alloc(16, time_ns=1))
    blocks, count = tracer.blocks()
    blocks[0].state = lib.MW_SETTLED_FREED
    tracer.take(alloc(16, time_ns=2))
    assert lib.mw_tracer_settle(tracer.pointer, blocks, count, True) == 0
    assert tracer.blocks()[1] == 1


def test_survivors_of_windows_give_a_rate():
    tracer = Tracer()
    tracer.take(*[alloc(n * 16, 100, weight_bytes=1000) for n in range(1, 11)])
    tracer.settle(dict.fromkeys(range(16, 96, 16), lib.MW_SETTLED_ALIVE))
    assert lib.mw_tracer_add_window(tracer.pointer, 1, 2 * SECOND) == 0
    (site,) = tracer.sites(lib.MW_ORDER_SURVIVED)
    assert site.survived_bytes_per_second == 2500
    assert tracer.process(1).window_ns == 2 * SECOND
    assert lib.mw_tracer_add_window(tracer.pointer, 9, SECOND) == -errno.ESRCH


def test_slopes_are_told_per_site_and_per_group_with_their_interval():
    tracer, address = Tracer(blocks_max=20_000, rows_max=3), 0
    domains = {1: lib.MW_DOMAIN_NATIVE, 2: lib.MW_DOMAIN_PY_OBJECT, 3: lib.MW_DOMAIN_PY_MEM}
    for second in range(1, 200):
        for stack, count in ((1, 5), (2, 20), (3, 0)):
            for _ in range(count):
                address += 16
                time_ns = second * SECOND
                fields = {"native_stack": stack, "domain": domains[stack], "time_ns": time_ns}
                tracer.take(alloc(address, 100, **fields))
        # Churn: comes and goes within the second.
        tracer.take(alloc(2**40, 10**6, native_stack=3, domain=domains[3], time_ns=second * SECOND))
        tracer.take(free(2**40, time_ns=second * SECOND))
        table = tracer.table(lib.MW_ORDER_GROWTH, now_s=second)
    rows = [table.sites[i] for i in range(table.site_count)]
    assert [row.native_stack for row in rows] == [2, 1, 3]
    assert rows[0].live.theil_sen_bytes_per_second == pytest.approx(2000)
    assert rows[1].live.theil_sen_bytes_per_second == pytest.approx(500)
    low, high = (
        rows[0].live.theil_sen_low_bytes_per_second,
        rows[0].live.theil_sen_high_bytes_per_second,
    )
    assert low <= 2000.0001
    assert high >= 1999.9999
    assert rows[2].live.theil_sen_bytes_per_second == 0
    assert rows[2].allocated_bytes_per_second == pytest.approx(10**6)
    process = table.processes[0]
    assert process.live[lib.MW_HEAP_NATIVE].theil_sen_bytes_per_second == pytest.approx(500)
    assert process.live[lib.MW_HEAP_PYTHON].theil_sen_bytes_per_second == pytest.approx(2000)
    assert process.live[lib.MW_HEAP_MAP].theil_sen_bytes_per_second == 0
    assert process.allocated_bytes_per_second[lib.MW_HEAP_PYTHON] == pytest.approx(1002000)
    assert rows[0].since_ns == SECOND


def test_a_table_holds_the_top_rows_and_counts_the_rest():
    tracer = Tracer(rows_max=3)
    tracer.take(*[alloc(n * 16, n, native_stack=n) for n in range(1, 11)])
    table = tracer.table()
    assert [table.sites[i].native_stack for i in range(table.site_count)] == [10, 9, 8]
    assert table.sites_omitted == 7


def test_a_table_of_one_process_shows_no_other():
    tracer = Tracer()
    tracer.take(alloc(16, pid=1), alloc(16, pid=2))
    assert {row.pid for row in tracer.sites(pid=2)} == {2}
    assert tracer.table(pid=9).process_count == 0


def test_a_table_wants_an_order_and_advancing_time():
    tracer = Tracer()
    tracer.table()
    out = ffi.new("struct mw_tracer_table **")
    for time_ns, order in ((SECOND, lib.MW_ORDER_LIVE), (9 * SECOND, 0), (9 * SECOND, 6)):
        assert lib.mw_tracer_table(tracer.pointer, time_ns, 0, order, out) == -errno.EINVAL


def test_the_kernels_counts_are_kept_per_process():
    tracer = Tracer(processes_max=1)
    counts = ffi.new("struct mw_target_counts *", {"hits_total": 9, "dropped_blocks_total": 3})
    assert lib.mw_tracer_tell_counts(tracer.pointer, 5, SECOND, counts) == 0
    assert tracer.process(5).counts.dropped_blocks_total == 3
    assert lib.mw_tracer_tell_counts(tracer.pointer, 6, SECOND, counts) == -errno.ESRCH
    assert lib.mw_tracer_tell_counts(tracer.pointer, 0, SECOND, counts) == -errno.ESRCH


@pytest.mark.parametrize("name", sorted(LIMITS))
@pytest.mark.parametrize("value", [0])
def test_a_bound_of_zero_is_refused(name, value):
    limits = ffi.new("struct mw_tracer_limits *", {**LIMITS, name: value})
    assert lib.mw_tracer_create(limits, ffi.new("struct mw_tracer **")) == -errno.EINVAL


def test_a_recording_is_replayed_whole():
    tracer = Tracer()
    records = [stack_event(1, 5, [1]), alloc(16, native_stack=5), b"odd", thread_event(1, 1)]
    data = recording(records)
    assert lib.mw_tracer_replay(tracer.pointer, data, len(data)) == 4
    counters = tracer.counters()
    assert (counters.block_count, counters.stack_count) == (1, 1)
    assert counters.records_refused_total == 1


@pytest.mark.parametrize("cut", [1, 8, 63, 64])
def test_a_recording_that_is_cut_off_is_refused(cut):
    tracer, data = Tracer(), recording([alloc(16)])
    assert lib.mw_tracer_replay(tracer.pointer, data[:-cut], len(data) - cut) == -errno.EINVAL


def test_random_bytes_do_no_harm():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng, tracer = random.Random(seed), Tracer()
    for _ in range(20_000):
        record = bytearray(rng.randbytes(rng.choice([0, 4, 8, 32, 40, 48, 64, 64, 64, 2064])))
        if len(record) >= 4:
            record[0:4] = rng.choice([1, 2, 3]).to_bytes(4, "little")
        if len(record) == 64:
            record[60:63] = bytes([rng.randrange(7), 0, rng.randrange(7)])
            record[4:8] = rng.randrange(6).to_bytes(4, "little")
        tracer.take(bytes(record))
    counters = tracer.counters()
    assert counters.records_total == 20_000
    assert 0 < counters.records_refused_total < 20_000


def test_a_descriptor_that_is_no_map_is_an_error_and_minus_one_closes():
    tracer = Tracer()
    with open("/dev/null", "rb") as file:
        assert lib.mw_tracer_drain(tracer.pointer, file.fileno(), 0) < 0
    assert lib.mw_tracer_drain(tracer.pointer, -1, 0) == 0
