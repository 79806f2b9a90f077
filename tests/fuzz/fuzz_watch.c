/* Feeds process records, lifecycle events and names in any order to the aggregator, whose bounds and
 * counts must hold whatever they say.  Records come from memory and, as the iterator's would, from a
 * descriptor.  Pids and times are few, so that they meet each other. */

#include "aggregator.h"
#include "fuzz_input.h"
#include "records.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	RECORDS_MAX = 8,
	SERVICES_MAX = 6,
	ROWS_MAX = 4,
	UNNAMED_MAX = 3,
	INCIDENTS_MAX = 2,
	PROCESSES_MAX = 12,
	STEPS_MAX = 400,
};

static const struct mw_limits limits = {
    .bucket_ns = {1000000000, 4000000000, 16000000000, 64000000000},
    .screen_bytes = 4096,
    .processes_max = PROCESSES_MAX,
    .services_max = SERVICES_MAX,
    .rows_max = ROWS_MAX,
    .unnamed_max = UNNAMED_MAX,
    .oom_kills_max = INCIDENTS_MAX,
};

static void check_table(const struct mw_table *table)
{
	const struct mw_counters *counters = &table->counters;

	if (table->row_count > ROWS_MAX || table->unnamed_count > UNNAMED_MAX || table->oom_kill_count > INCIDENTS_MAX)
		abort();
	if (counters->process_count > PROCESSES_MAX || counters->service_count > SERVICES_MAX)
		abort();
	if (counters->processes_born_total - counters->processes_gone_total != counters->process_count)
		abort();
	for (uint32_t i = 0; i < table->row_count; i++)
		if (table->rows[i].service_id >= SERVICES_MAX)
			abort();
}

static uint32_t take_records(struct input *input, struct mw_process_record *records)
{
	uint32_t count = take_u8(input) % (RECORDS_MAX + 1);

	for (uint32_t i = 0; i < count; i++) {
		take(input, &records[i], sizeof(records[i]));
		records[i].pid %= 16;
		records[i].start_time_ns %= 4;
	}
	return count;
}

/* As many bytes as the input says, whole records or not. */
static void read_records(struct input *input)
{
	struct mw_reader *reader = mw_reader_create();
	const struct mw_process_record *records;
	size_t size = take_u16(input) % 1024;
	int fd = memfd_create("records", MFD_CLOEXEC);
	uint64_t sum = 0;
	int count;

	if (size > input->left)
		size = input->left;
	if (!reader || fd < 0 || write(fd, input->bytes, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET))
		abort();
	mw_reader_begin(reader, fd);
	while ((count = mw_reader_next(reader, &records)) > 0)
		for (int i = 0; i < count; i++)
			sum += records[i].pid;
	if (count == 0 && size % sizeof(*records) != 0)
		abort();
	(void)sum;
	close(fd);
	mw_reader_destroy(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	struct mw_aggregator *aggregator = mw_aggregator_create(&limits);
	struct mw_process_record records[RECORDS_MAX];
	struct mw_lifecycle_event event;
	const struct mw_table *table;
	struct mw_row rows[4];
	double times_s[64], bytes[64];
	uint64_t time_ns = 1000000000;
	uint32_t count;

	if (!aggregator)
		abort();
	for (int step = 0; step < STEPS_MAX && input.left; step++) {
		switch (take_u8(&input) % 7) {
		case 0:
		case 1:
			time_ns += (uint64_t)take_u16(&input) * 1000000;
			count = take_records(&input, records);
			if (mw_aggregator_tick(aggregator, time_ns,
					       take_u8(&input) & 1 ? MW_RECORDS_PARTIAL : MW_NO_ITERATOR, records,
					       count, &table) == 0)
				check_table(table);
			break;
		case 2:
			take(&input, &event, sizeof(event));
			event.pid %= 16;
			event.start_time_ns %= 4;
			event.kind %= 5;
			mw_aggregator_on_event(aggregator, &event, sizeof(event));
			break;
		case 3: /* not an event, whatever its size */
			count = take_u8(&input);
			mw_aggregator_on_event(aggregator, input.bytes, count < input.left ? count : input.left);
			break;
		case 4:
			mw_aggregator_name(aggregator, take_u8(&input) % 16, take_u8(&input) % 4,
					   take_u8(&input) % (SERVICES_MAX + 2));
			break;
		case 5:
			mw_aggregator_forget_service(aggregator, take_u8(&input) % (SERVICES_MAX + 2));
			break;
		case 6:
			if (mw_aggregator_members(aggregator, take_u8(&input) % SERVICES_MAX, rows, 4) > 4)
				abort();
			mw_aggregator_history(aggregator, take_u8(&input) % 16, take_u8(&input) % 4,
					      take_u8(&input) % 5, times_s, bytes);
			read_records(&input);
			break;
		}
	}
	mw_aggregator_destroy(aggregator);
	return 0;
}
