/* incidents.h - which findings belong together: those of one inside address (or group) that are open at the same time. Their
 * incident has the id of the first, for as long as one of them is open. Relay main thread. */
#pragma once

#include <stdint.h>

#include "compiler.h"

struct incidents;

int incidents_new(uint32_t places, struct incidents **ret) MUST_CHECK;	/* places: a power of two */
struct incidents *incidents_free(struct incidents *x);

/* The incident of `in`, a new one by the name of `id` when none is open; *ret_id its id. Place for incidents_leave(), 0: there was
 * no room, the finding is an incident by itself. */
uint32_t incidents_join(struct incidents *x, const uint8_t in[16], uint64_t id, uint64_t *ret_id);
void incidents_leave(struct incidents *x, uint32_t place);
