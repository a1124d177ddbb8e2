/* leases_sleep.c - idle leases: asleep, then waked or ended. See leases.h [M7].
 *
 * That an element is in the map or not changes no number: asleep, a lease has the counter, the quota and the credit that it had. It may
 * be put back at any time; it may end once the packets have left that were amid the rules when its element went. So a lot begins to
 * sleep only when no grace period is waited for, and what is asleep when that is over has been since before it began.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "leases_internal.h"
#include "log.h"

static int asked = -1;		/* eventfd: main thread to the one that waits */

static void *wait_for_kernel(void *arg)
{
	const int over = *(const int *)arg;
	eventfd_t n;

	for (;;) {
		if (eventfd_read(asked, &n) < 0)
			continue;	/* a signal */
		rules_lease_grace();
		(void)eventfd_write(over, 1);
	}
	return NULL;
}

int leases_start(struct engine *e)
{
	pthread_t thread;

	asked = eventfd(0, EFD_CLOEXEC);
	e->lease_grace = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (asked < 0 || e->lease_grace < 0)
		return -errno;
	return -pthread_create(&thread, NULL, wait_for_kernel, &e->lease_grace);
}

void leases_sleep(struct engine *e)
{
	struct leases *s = e->leases;
	struct rules_lease v[RULES_LEASES];
	size_t n = 0;
	int r;

	for (uint32_t i = 0; !s->grace && n < RULES_LEASES && i < LEASE_SLOTS; i++)
		if (lease_is_open(e, i) && s->live[i].idle && !s->live[i].asleep)
			v[n++] = lease_in_kernel(e, i);
	if (n == 0)
		return;
	r = rules_lease_end(e->rules, v, n);
	if (r == 0 && eventfd_write(asked, 1) < 0)
		r = -errno;
	if (r < 0) {
		log_notice("idle leases: %s; all of them are ended", strerror(-r));
		leases_end_all(e);
		return;
	}
	for (size_t i = 0; i < n; i++)
		s->live[v[i].slot].asleep = true;
	s->grace = true;
}

void leases_grace_over(struct engine *e)
{
	struct leases *s = e->leases;

	leases_review(e);	/* who begins again has said so */
	s->grace = false;
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (lease_is_open(e, i) && s->live[i].asleep)
			leases_add_end(e, i);
	if (s->nending)
		leases_ended(e);
	leases_sleep(e);
}
