/* area_map.h - the shared area in a process's address space, on huge pages where the kernel gives them.
 *
 * [M1] Place      mapped at a multiple of AREA_HUGE, so that one entry of the page table can serve a huge page.
 * [M2] Optional   without huge pages (kernel before 6.1, memory in pieces) everything works, a packet's decision takes up to a
 *                 tenth longer at 100,000 pairs (tests/bench/bench_judge).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

/* The whole file, for as long as the process lives; prot as in mmap(2). 0 or -errno. */
int area_map(int fd, int prot, void **ret_mem, size_t *ret_size) MUST_CHECK;

/* The first `size` bytes of a writable mapping of area_map(), which take memory from now on: madvise(MADV_COLLAPSE), about 6 ms
 * for each 2 MiB. 0 or -errno [M2]. */
int area_collapse(void *mem, size_t size) MUST_CHECK;
