/* segment.c - see segment.h for the contract. */
#include "segment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hash.h"

#define RECORD_MAGIC 0x65677370u	/* "egsp" */

struct record_head {
	uint32_t magic, len;
	uint64_t seq;
	uint8_t sum[16];	/* BLAKE2b-256 of seq and bytes, first half */
};

static void checksum(uint64_t seq, const void *data, size_t len, uint8_t ret[16])
{
	uint8_t part[HASH_SUM_LEN + sizeof(seq)], sum[HASH_SUM_LEN];

	hash_sum(data, len, part);
	memcpy(part + HASH_SUM_LEN, &seq, sizeof(seq));
	hash_sum(part, sizeof(part), sum);
	memcpy(ret, sum, 16);
}

static int write_at(int fd, const void *data, size_t len, uint64_t off)
{
	const char *p = data;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_at(int fd, void *data, size_t len, uint64_t off)
{
	char *p = data;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

size_t segment_record_size(size_t len)
{
	return sizeof(struct record_head) + len;
}

int segment_write(int fd, uint64_t off, uint64_t seq, const void *data, size_t len)
{
	struct record_head h = { .magic = RECORD_MAGIC, .len = (uint32_t)len, .seq = seq };
	int r;

	if (len > SEGMENT_RECORD_MAX)
		return -EMSGSIZE;
	checksum(seq, data, len, h.sum);
	r = write_at(fd, &h, sizeof(h), off);
	return r < 0 ? r : write_at(fd, data, len, off + sizeof(h));
}

int segment_read(int fd, uint64_t off, uint64_t seq, char **ret_data, size_t *ret_len)
{
	struct record_head h;
	uint8_t sum[16];
	char *data;
	int r = read_at(fd, &h, sizeof(h), off);

	if (r < 0)
		return r;
	if (h.magic != RECORD_MAGIC || h.seq != seq || h.len > SEGMENT_RECORD_MAX)
		return -ENODATA;
	data = malloc(h.len + 1);
	if (!data)
		return -ENOMEM;
	r = read_at(fd, data, h.len, off + sizeof(h));
	if (r == 0) {
		checksum(seq, data, h.len, sum);
		r = memcmp(sum, h.sum, sizeof(sum)) == 0 ? 0 : -ENODATA;
	}
	if (r < 0) {
		free(data);
		return r;
	}
	data[h.len] = '\0';
	*ret_data = data;
	*ret_len = h.len;
	return 0;
}

int segment_measure(int fd, struct segment *g, bool *ret_torn)
{
	struct stat st;
	int r = 0;

	g->end = g->first;
	g->size = 0;
	while (r == 0) {
		char *data;
		size_t len;

		r = segment_read(fd, g->size, g->end, &data, &len);
		if (r < 0)
			break;
		free(data);
		g->size += segment_record_size(len);
		g->end++;
	}
	if (r != -ENODATA && r != -EIO)	/* a bad sector ends it as a torn record does */
		return r;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_torn = (uint64_t)st.st_size > g->size;
	return 0;
}

int segment_rewrite(int fd, const struct segment *g)
{
	uint64_t off = 0;

	for (uint64_t seq = g->first; off < g->size; seq++) {
		char *data;
		size_t len;
		int r = segment_read(fd, off, seq, &data, &len);

		if (r < 0)
			return r;
		r = segment_write(fd, off, seq, data, len);
		free(data);
		if (r < 0)
			return r;
		off += segment_record_size(len);
	}
	return 0;
}
