/* rows.h - which subjects a table shows, in which order, and what it says.
 *
 * Must not know how records arrive, nor why a process belongs to a service. */

#ifndef MW_ROWS_H
#define MW_ROWS_H

#include <stdint.h>

#include "aggregator.h"
#include "processes.h"
#include "services.h"

struct mw_rows;

/* Rows of these subjects, which stay the caller's, rows_max in a table.  Takes
 * room to sort every subject, untouched until so many compete.  NULL if there
 * is no memory. */
struct mw_rows *mw_rows_create(const struct mw_limits *limits, const struct mw_clock *clock,
			       struct mw_processes *processes, struct mw_services *services);
void mw_rows_destroy(struct mw_rows *rows);

/* Choose and fill the table's rows, valid until the next call: rising services,
 * rising processes, both by their rise; services gone and processes cleared;
 * the other services by size.  Count in omitted_total what did not fit, but for
 * the last group.  A service that is gone stays so until a table has room to
 * say it.  Return how many. */
uint32_t mw_rows_choose(struct mw_rows *rows, uint64_t *omitted_total, const struct mw_row **ret);

/* Fill ret with the count largest processes of a service; return how many. */
uint32_t mw_rows_members(struct mw_rows *rows, uint32_t service_id, struct mw_row *ret, uint32_t count);

/* Fill ret with the sums of up to count services that have processes, by id; return how many. */
uint32_t mw_rows_services(const struct mw_rows *rows, struct mw_service_sums *ret, uint32_t count);

#endif
