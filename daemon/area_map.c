/* area_map.c - see area_map.h for the contract. */
#include "area_map.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "area.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25	/* linux/mman.h since 6.1 */
#endif

int area_map(int fd, int prot, void **ret_mem, size_t *ret_size)
{
	struct stat st;
	uint8_t *room;
	void *mem;

	if (fstat(fd, &st) < 0)
		return -errno;
	/* Address space is free: take more, and map over the aligned part. */
	room = mmap(NULL, (size_t)st.st_size + AREA_HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		return -errno;
	room += (AREA_HUGE - (uintptr_t)room % AREA_HUGE) % AREA_HUGE;
	mem = mmap(room, (size_t)st.st_size, prot, MAP_SHARED | MAP_FIXED, fd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	*ret_mem = mem;
	*ret_size = (size_t)st.st_size;
	return 0;
}

int area_collapse(void *mem, size_t size)
{
	/* The kernel collapses no place where there is no page at all. Adding 0: what is there stays, whoever writes meanwhile. */
	for (size_t at = 0; at < size; at += AREA_HUGE)
		atomic_fetch_add_explicit((_Atomic uint8_t *)mem + at, 0, memory_order_relaxed);
	return madvise(mem, size, MADV_COLLAPSE) < 0 ? -errno : 0;
}
