/* incidents.c - see incidents.h. */
#include "incidents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

#define NEAR 64		/* places where an address may be */

struct incident {
	uint8_t in[16];
	uint64_t id;
	uint32_t open;		/* 0: the place is free */
};

struct incidents {
	uint32_t mask;
	struct incident at[];
};

int incidents_new(uint32_t places, struct incidents **ret)
{
	struct incidents *x = calloc(1, sizeof(*x) + places * sizeof(x->at[0]));

	if (!x)
		return -ENOMEM;
	x->mask = places - 1;
	*ret = x;
	return 0;
}

struct incidents *incidents_free(struct incidents *x)
{
	free(x);
	return NULL;
}

uint32_t incidents_join(struct incidents *x, const uint8_t in[16], uint64_t id, uint64_t *ret_id)
{
	uint32_t first = hash_uid(in, 16);
	struct incident *place = NULL;

	for (uint32_t i = 0; i < NEAR && i <= x->mask; i++) {
		struct incident *at = &x->at[(first + i) & x->mask];

		if (at->open && memcmp(at->in, in, sizeof(at->in)) == 0) {
			place = at;
			break;
		}
		if (!at->open && !place)
			place = at;
	}
	*ret_id = id;
	if (!place)
		return 0;
	if (!place->open) {
		memcpy(place->in, in, sizeof(place->in));
		place->id = id;
	}
	place->open++;
	*ret_id = place->id;
	return (uint32_t)(place - x->at) + 1;
}

void incidents_leave(struct incidents *x, uint32_t place)
{
	if (place && place <= x->mask + 1 && x->at[place - 1].open)
		x->at[place - 1].open--;
}
