/* faulty_disk.h - pwrite, fdatasync and fsync of a test program on a disk that fails when told to, as Linux passes it on.
 *
 * Linked with --wrap of the three and of pwrite64, which is pwrite where off_t was asked to have 64 bits. A failed
 * fdatasync forgets: what it did not write can be read until power_cut(), and no later one writes it unless it is written again. Names in a folder are never lost.
 */
#pragma once

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t __real_pwrite(int fd, const void *data, size_t len, off_t off);
ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t len, off_t off);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);

#define DISK_FILES 256

enum { SAFE, DIRTY, FORGOTTEN };

struct disk_file {
	int fd;			/* our own: the inode stays */
	ino_t ino;
	size_t size;
	unsigned char *state;	/* of each byte */
	char *image;		/* what a power cut leaves */
};

static struct {
	struct disk_file file[DISK_FILES];
	unsigned n;
	unsigned bad_write, bad_sync;	/* one in so many fails; 0: none */
	bool mild;			/* no write is refused: it is short or interrupted */
	unsigned failed_writes, failed_syncs;
	void (*before)(void);		/* each call; NULL: nothing */
} disk;

static uint64_t rng_state;

static uint32_t rng(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (uint32_t)(rng_state >> 32) % below;
}

static void disk_drop(unsigned i)
{
	close(disk.file[i].fd);
	free(disk.file[i].state);
	free(disk.file[i].image);
	disk.file[i] = disk.file[--disk.n];
}

static struct disk_file *disk_file(int fd)
{
	char self[40];
	struct stat st;
	int r = fstat(fd, &st);

	assert(r == 0);
	for (unsigned i = 0; i < disk.n; i++)
		if (disk.file[i].ino == st.st_ino)
			return &disk.file[i];
	for (unsigned i = disk.n; i-- > 0;)
		if (fstat(disk.file[i].fd, &st) == 0 && !st.st_nlink)
			disk_drop(i);
	assert(disk.n < DISK_FILES);
	r = fstat(fd, &st);
	assert(r == 0);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);	/* theirs may be for writing only */
	disk.file[disk.n] = (struct disk_file){ .fd = open(self, O_RDWR | O_CLOEXEC), .ino = st.st_ino };
	assert(disk.file[disk.n].fd >= 0);
	return &disk.file[disk.n++];
}

static void disk_grow(struct disk_file *f, size_t size)
{
	if (size <= f->size)
		return;
	f->state = realloc(f->state, size);
	f->image = realloc(f->image, size);
	assert(f->state && f->image);
	memset(f->state + f->size, SAFE, size - f->size);
	memset(f->image + f->size, 0, size - f->size);
	f->size = size;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t off)
{
	static const int errors[] = { EIO, ENOSPC, EINTR };
	struct disk_file *f;
	ssize_t n;

	if (disk.before)
		disk.before();
	f = disk_file(fd);
	if (disk.bad_write && rng(disk.bad_write) == 0) {
		disk.failed_writes++;
		if (len > 1 && rng(2))
			len = 1 + rng((uint32_t)len - 1);	/* short */
		else {
			errno = disk.mild ? EINTR : errors[rng(3)];
			return -1;
		}
	}
	n = __real_pwrite(fd, data, len, off);
	if (n > 0) {
		disk_grow(f, (size_t)(off + n));
		memset(f->state + off, DIRTY, (size_t)n);
	}
	return n;
}

ssize_t __wrap_pwrite64(int fd, const void *data, size_t len, off_t off)
{
	return __wrap_pwrite(fd, data, len, off);
}

int __wrap_fdatasync(int fd)
{
	const bool fails = disk.bad_sync && rng(disk.bad_sync) == 0;
	struct disk_file *f;
	size_t from = 0, to;

	if (disk.before)
		disk.before();
	f = disk_file(fd);
	to = f->size;
	disk.failed_syncs += fails;
	while (from < to && f->state[from] != DIRTY)
		from++;
	while (to > from && f->state[to - 1] != DIRTY)
		to--;
	for (size_t i = from, end; i < to; i = end) {	/* runs of one state */
		for (end = i + 1; end < to && f->state[end] == f->state[i];)
			end++;
		if (f->state[i] != DIRTY)
			continue;
		if (!fails && pread(f->fd, f->image + i, end - i, (off_t)i) < 0)
			abort();
		memset(f->state + i, fails ? FORGOTTEN : SAFE, end - i);
	}
	errno = EIO;
	return fails ? -1 : 0;
}

int __wrap_fsync(int fd)
{
	(void)fd;
	if (disk.before)
		disk.before();
	errno = EIO;
	return disk.bad_sync && rng(disk.bad_sync) == 0 ? -1 : 0;
}

static void power_cut(void)
{
	while (disk.n) {
		struct disk_file *f = &disk.file[0];
		struct stat st;
		size_t n = fstat(f->fd, &st) == 0 ? (size_t)st.st_size : 0;

		n = n < f->size ? n : f->size;	/* not beyond a truncation */
		for (size_t i = 0, end; i < n; i = end) {
			for (end = i + 1; end < n && f->state[end] == f->state[i];)
				end++;
			if (f->state[i] != SAFE && __real_pwrite(f->fd, f->image + i, end - i, (off_t)i) < 0)
				abort();
		}
		disk_drop(0);
	}
}
