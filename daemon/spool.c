/* spool.c - see spool.h for the contract.
 *
 * A segment is a file named by the seq of its first record, 16 hex digits; a record is a header and its bytes. The file
 * `acked` holds the last acknowledged seq as text.
 */
#include "spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hash.h"

#define RECORD_MAGIC 0x65677370u	/* "egsp" */
#define RECORD_MAX   (64U << 10)
#define SEGMENT_MAX  (4ULL << 20)
#define MEMORY_MAX   1024
#define PATH_LEN     512

struct record_head {
	uint32_t magic, len;
	uint64_t seq;
	uint8_t sum[16];	/* BLAKE2b-256 of seq and bytes, first half */
};

struct segment {
	uint64_t first, end;	/* seqs [first, end) that are whole */
	uint64_t size;		/* bytes that are whole */
};

struct waiting {		/* appended, not yet in a file */
	uint64_t seq;
	size_t len;
	char *data;
};

struct spool {
	char dir[PATH_LEN - 64];
	uint64_t cap, next, acked, lost, synced;
	struct segment *seg;	/* ascending */
	size_t nseg, seg_size;
	int fd;			/* of the last segment, append; -1 */
	bool dir_dirty, file_dirty;
	struct waiting wait[MEMORY_MAX];
	unsigned nwait;
	/* reader's place: where record `at_seq` begins in segment `at_first` */
	uint64_t at_seq, at_first, at_off;
};

static void segment_path(const struct spool *s, uint64_t first, char path[PATH_LEN])
{
	snprintf(path, PATH_LEN, "%s/%016" PRIx64, s->dir, first);
}

static void checksum(uint64_t seq, const void *data, size_t len, uint8_t ret[16])
{
	uint8_t part[HASH_SUM_LEN + sizeof(seq)], sum[HASH_SUM_LEN];

	hash_sum(data, len, part);
	memcpy(part + HASH_SUM_LEN, &seq, sizeof(seq));
	hash_sum(part, sizeof(part), sum);
	memcpy(ret, sum, 16);
}

/* ---- whole reads and writes ---- */

static int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		p += n;
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

/* The record at off: 0 and *ret_data malloc'd, -ENODATA: no whole, right record there [S2]. */
static int read_record(int fd, uint64_t off, uint64_t seq, char **ret_data, size_t *ret_len)
{
	struct record_head h;
	uint8_t sum[16];
	char *data;
	int r = read_at(fd, &h, sizeof(h), off);

	if (r < 0)
		return r;
	if (h.magic != RECORD_MAGIC || h.seq != seq || h.len > RECORD_MAX)
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

/* ---- opening ---- */

static int add_segment(struct spool *s, struct segment g)
{
	if (s->nseg == s->seg_size) {
		size_t size = s->seg_size ? s->seg_size * 2 : 16;
		struct segment *p = realloc(s->seg, size * sizeof(*p));

		if (!p)
			return -ENOMEM;
		s->seg = p;
		s->seg_size = size;
	}
	s->seg[s->nseg++] = g;
	return 0;
}

static int by_first(const void *x, const void *y)
{
	const struct segment *a = x, *b = y;

	return (a->first > b->first) - (a->first < b->first);
}

static int list_segments(struct spool *s)
{
	DIR *d = opendir(s->dir);
	struct dirent *e;
	int r = 0;

	if (!d)
		return -errno;
	while (r == 0 && (e = readdir(d))) {
		char *end;
		uint64_t first = strtoull(e->d_name, &end, 16);

		if (strlen(e->d_name) == 16 && *end == '\0' && first)
			r = add_segment(s, (struct segment){ .first = first });
	}
	closedir(d);
	if (s->nseg)
		qsort(s->seg, s->nseg, sizeof(*s->seg), by_first);
	return r;
}

/* How far the segment is whole. A tail that is not is cut off when it is the last one, so that appends follow good ones. */
static int measure(struct spool *s, struct segment *g, bool last)
{
	char path[PATH_LEN], *data;
	struct stat st;
	size_t len;
	int fd, r = 0;

	segment_path(s, g->first, path);
	fd = open(path, last ? O_RDWR | O_CLOEXEC : O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	g->end = g->first;
	while (r == 0) {
		r = read_record(fd, g->size, g->end, &data, &len);
		if (r < 0)
			break;
		free(data);
		g->size += sizeof(struct record_head) + len;
		g->end++;
	}
	if (r == -ENODATA)
		r = 0;
	if (r == 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size > g->size) {
		s->lost++;
		if (last && ftruncate(fd, (off_t)g->size) < 0)
			r = -errno;
	}
	close(fd);
	return r;
}

static uint64_t read_acked(const struct spool *s)
{
	char path[PATH_LEN], text[32] = "";
	uint64_t seq = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/acked", s->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) > 0)
		seq = strtoull(text, NULL, 10);
	close(fd);
	return seq;
}

int spool_open(const char *dir, uint64_t cap, struct spool **ret_spool)
{
	struct spool *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	if (strlen(dir) >= sizeof(s->dir)) {
		free(s);
		return -ENAMETOOLONG;
	}
	snprintf(s->dir, sizeof(s->dir), "%s", dir);
	s->cap = cap;
	s->fd = -1;
	s->acked = read_acked(s);
	r = access(dir, W_OK | X_OK) < 0 ? -errno : list_segments(s);
	for (size_t i = 0; r == 0 && i < s->nseg; i++)
		r = measure(s, &s->seg[i], i + 1 == s->nseg);
	if (r < 0) {
		spool_close(s);
		return r;
	}
	s->next = s->nseg ? s->seg[s->nseg - 1].end : 1;
	if (s->next <= s->acked)
		s->next = s->acked + 1;	/* segments were removed by hand: a seq is never given twice */
	s->synced = s->next - 1;
	*ret_spool = s;
	return 0;
}

struct spool *spool_close(struct spool *s)
{
	if (!s)
		return NULL;
	for (unsigned i = 0; i < s->nwait; i++)
		free(s->wait[i].data);
	if (s->fd >= 0)
		close(s->fd);
	free(s->seg);
	free(s);
	return NULL;
}

/* ---- cap ---- */

static uint64_t total(const struct spool *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < s->nseg; i++)
		n += s->seg[i].size;
	return n;
}

/* [S4] The oldest go; never the one being written. */
static void trim(struct spool *s)
{
	char path[PATH_LEN];

	while (s->nseg > 1 && total(s) > s->cap) {
		struct segment *g = &s->seg[0];

		if (g->end > s->acked + 1)
			s->lost += g->end - MAX_OF(g->first, s->acked + 1);
		segment_path(s, g->first, path);
		unlink(path);
		s->nseg--;
		memmove(s->seg, s->seg + 1, s->nseg * sizeof(*s->seg));
	}
}

/* ---- writing ---- */

static int new_segment(struct spool *s, uint64_t first)
{
	char path[PATH_LEN];
	int fd, r;

	segment_path(s, first, path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = add_segment(s, (struct segment){ .first = first, .end = first });
	if (r < 0) {
		close(fd);
		return r;
	}
	if (s->fd >= 0) {
		if (fdatasync(s->fd) < 0)	/* records of the old one that sync() has not covered */
			s->file_dirty = true;
		close(s->fd);
	}
	s->fd = fd;
	s->dir_dirty = true;
	trim(s);
	return 0;
}

static int segment_for(struct spool *s, uint64_t seq, size_t len)
{
	struct segment *g = s->nseg ? &s->seg[s->nseg - 1] : NULL;
	char path[PATH_LEN];

	if (!g || g->end != seq || g->size + len > SEGMENT_MAX)
		return new_segment(s, seq);
	if (s->fd >= 0)
		return 0;
	segment_path(s, g->first, path);
	s->fd = open(path, O_WRONLY | O_CLOEXEC);
	return s->fd < 0 ? -errno : 0;
}

static int write_record(struct spool *s, uint64_t seq, const void *data, size_t len)
{
	struct record_head h = { .magic = RECORD_MAGIC, .len = (uint32_t)len, .seq = seq };
	struct segment *g;
	int r = segment_for(s, seq, sizeof(h) + len);

	if (r < 0)
		return r;
	checksum(seq, data, len, h.sum);
	g = &s->seg[s->nseg - 1];
	if (lseek(s->fd, (off_t)g->size, SEEK_SET) < 0)
		return -errno;
	r = write_all(s->fd, &h, sizeof(h));
	if (r == 0)
		r = write_all(s->fd, data, len);
	if (r < 0) {
		if (ftruncate(s->fd, (off_t)g->size) < 0)
			return -errno;	/* a torn tail: found by its checksum, and overwritten by the next try */
		return r;
	}
	g->size += sizeof(h) + len;
	g->end = seq + 1;
	s->file_dirty = true;
	return 0;
}

uint64_t spool_next_seq(const struct spool *s)
{
	return s->next;
}

static int keep_in_memory(struct spool *s, const void *data, size_t len)
{
	struct waiting *w = &s->wait[s->nwait];

	if (s->nwait == MEMORY_MAX)
		return -ENOSPC;
	w->data = malloc(len ? len : 1);
	if (!w->data)
		return -ENOMEM;
	memcpy(w->data, data, len);
	w->seq = s->next;
	w->len = len;
	s->nwait++;
	return 0;
}

int spool_append(struct spool *s, const void *data, size_t len, uint64_t *ret_seq)
{
	int r;

	if (len > RECORD_MAX)
		return -EMSGSIZE;
	r = s->nwait ? -EAGAIN : write_record(s, s->next, data, len);	/* [S3]: behind those that wait */
	if (r < 0)
		r = keep_in_memory(s, data, len);
	if (r < 0)
		return r;
	*ret_seq = s->next++;
	return 0;
}

static int flush_memory(struct spool *s)
{
	unsigned n = 0;
	int r = 0;

	while (n < s->nwait) {
		r = write_record(s, s->wait[n].seq, s->wait[n].data, s->wait[n].len);
		if (r < 0)
			break;
		free(s->wait[n++].data);
	}
	s->nwait -= n;
	memmove(s->wait, s->wait + n, s->nwait * sizeof(*s->wait));
	return r;
}

static int sync_dir(struct spool *s)
{
	int fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

int spool_sync(struct spool *s)
{
	int r = flush_memory(s);

	if (s->file_dirty && s->fd >= 0) {
		if (fdatasync(s->fd) < 0)
			return -errno;
		s->file_dirty = false;
	}
	if (s->dir_dirty) {
		int e = sync_dir(s);

		if (e < 0)
			return e;
		s->dir_dirty = false;
	}
	s->synced = s->nwait ? s->wait[0].seq - 1 : s->next - 1;
	return r;
}

/* ---- reading ---- */

static const struct segment *segment_with(const struct spool *s, uint64_t after)
{
	for (size_t i = 0; i < s->nseg; i++)
		if (s->seg[i].end > s->seg[i].first && s->seg[i].end > after + 1)
			return &s->seg[i];
	return NULL;
}

int spool_read(struct spool *s, uint64_t after, uint64_t *ret_seq, char **ret_data, size_t *ret_len)
{
	const struct segment *g = segment_with(s, after);
	uint64_t seq, off = 0, want;
	char path[PATH_LEN], *data = NULL;
	size_t len = 0;
	int fd, r = 0;

	if (!g)
		return -ENOENT;
	want = MAX_OF(after + 1, g->first);
	if (want > s->synced)
		return -ENOENT;
	seq = g->first;
	if (s->at_first == g->first && s->at_seq <= want) {
		seq = s->at_seq;
		off = s->at_off;
	}
	segment_path(s, g->first, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (; r == 0; seq++) {
		r = read_record(fd, off, seq, &data, &len);
		if (r < 0)
			break;
		off += sizeof(struct record_head) + len;
		if (seq == want)
			break;
		free(data);
	}
	close(fd);
	if (r < 0)
		return r == -ENODATA ? -EIO : r;	/* whole at open, broken now */
	s->at_first = g->first;
	s->at_seq = seq + 1;
	s->at_off = off;
	*ret_seq = seq;
	*ret_data = data;
	*ret_len = len;
	return 0;
}

int spool_ack(struct spool *s, uint64_t seq)
{
	char path[PATH_LEN], temporary[PATH_LEN], text[32];
	int fd, n, r;

	if (seq <= s->acked)
		return 0;
	s->acked = seq;
	snprintf(path, sizeof(path), "%s/acked", s->dir);
	snprintf(temporary, sizeof(temporary), "%s/acked.new", s->dir);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	n = snprintf(text, sizeof(text), "%" PRIu64 "\n", seq);
	r = write_all(fd, text, (size_t)n);
	close(fd);
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	return r;
}

uint64_t spool_acked(const struct spool *s)
{
	return s->acked;
}

uint64_t spool_lost(const struct spool *s)
{
	return s->lost;
}
