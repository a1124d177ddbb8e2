/* spool.c - see spool.h for the contract.
 *
 * A segment is a file named by the seq of its first record, 16 hex digits. The file `acked` holds the last acknowledged seq as
 * text, twice. A record stays in memory until a sync of the file that has it has succeeded: Linux forgets pages that it could not write, and
 * the next fdatasync() says 0 about them. So a failed try is taken back whole, and the next one writes to another file.
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
#include <unistd.h>

#include "file_replace.h"
#include "segment.h"

#define SEGMENT_MAX  (4ULL << 20)
#define MEMORY_MAX   1024
#define MEMORY_BYTES (8U << 20)
#define PATH_LEN     512

struct waiting {		/* appended, not yet durable */
	uint64_t seq;
	size_t len;
	char *data;
};

struct spool {
	char dir[PATH_LEN - 64];
	uint64_t cap, next, acked, lost;
	struct segment *seg;	/* ascending */
	size_t nseg, seg_size;
	int fd;			/* of the last segment; -1 */
	bool dir_dirty, file_dirty;
	bool fresh;		/* the last segment's file failed: it is written no more */
	bool unread;		/* nobody acknowledges */
	bool unsure;		/* the last segment is another process's: see confirm() */
	struct waiting wait[MEMORY_MAX];
	unsigned nwait;
	size_t wait_bytes;
	/* reader's place: where record `at_seq` begins in segment `at_first` */
	uint64_t at_seq, at_first, at_off;
};

static void segment_path(const struct spool *s, uint64_t first, char path[PATH_LEN])
{
	snprintf(path, PATH_LEN, "%s/%016" PRIx64, s->dir, first);
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
		uint64_t first = strtoull(e->d_name, NULL, 16);
		char name[20];

		snprintf(name, sizeof(name), "%016" PRIx64, first);
		if (first && strcmp(e->d_name, name) == 0)
			r = add_segment(s, (struct segment){ .first = first });
	}
	closedir(d);
	if (s->nseg)
		qsort(s->seg, s->nseg, sizeof(*s->seg), by_first);
	return r;
}

static int measure(struct spool *s, struct segment *g, bool last)
{
	char path[PATH_LEN];
	bool torn = false;
	int fd, r;

	segment_path(s, g->first, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = segment_measure(fd, g, &torn);
	close(fd);
	if (r == 0 && torn && last)
		s->lost++;	/* [S2] at least */
	return r;
}

/* A segment is named by the first record that is not durable in those before it. What one of them holds from there on is what a
 * failed try left: the later one is right. [S2] What is missing in between was lost. */
static void fit_together(struct spool *s)
{
	for (size_t i = 0; i + 1 < s->nseg; i++) {
		const uint64_t then = s->seg[i + 1].first;
		uint64_t from;

		s->seg[i].end = MIN_OF(s->seg[i].end, then);
		from = MAX_OF(s->seg[i].end, s->acked + 1);
		if (then > from)
			s->lost += then - from;
	}
}

/* The number stands there twice: a flipped digit would hide records for good, none at all offers them again. */
static uint64_t read_acked(const struct spool *s)
{
	char path[PATH_LEN], text[64] = "";
	uint64_t seq = 0, again = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/acked", s->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0 || sscanf(text, "%" SCNu64 " %" SCNu64, &seq, &again) != 2)
		seq = again = 0;
	close(fd);
	return seq == again ? seq : 0;
}

static int sync_dir(struct spool *s)
{
	int fd, r = 0;

	if (!s->dir_dirty)
		return 0;
	fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	s->dir_dirty = r < 0;
	return r;
}

/* [S1] A sync of the last file may have failed before the process that wrote it ended. Its records are read from memory then, and are
 * not on the disk. Written again, they are what the next sync speaks of. A tail that is not whole is cut off: appends follow. */
static int confirm(struct spool *s)
{
	const struct segment *g = s->nseg ? &s->seg[s->nseg - 1] : NULL;
	char path[PATH_LEN];
	int fd, r;

	if (!s->unsure)
		return 0;
	segment_path(s, g->first, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = ftruncate(fd, (off_t)g->size) < 0 ? -errno : segment_rewrite(fd, g);
	if (r == 0 && fdatasync(fd) < 0)
		r = -errno;
	close(fd);
	if (r == 0)
		r = sync_dir(s);
	s->unsure = r < 0;
	return r;
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
	fit_together(s);
	s->next = s->nseg ? s->seg[s->nseg - 1].end : 1;
	if (s->next <= s->acked)
		s->next = s->acked + 1;	/* segments were removed by hand: a seq is never given twice */
	s->unsure = s->nseg > 0;
	s->dir_dirty = true;
	(void)!confirm(s);		/* else spool_sync() tries again and says why */
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

		if (!s->unread && g->end > s->acked + 1)
			s->lost += g->end - MAX_OF(g->first, s->acked + 1);
		segment_path(s, g->first, path);
		unlink(path);
		s->nseg--;
		memmove(s->seg, s->seg + 1, s->nseg * sizeof(*s->seg));
	}
}

/* ---- writing ---- */

/* An empty or torn file of this name may be left over: it begins anew. */
static int new_segment(struct spool *s, uint64_t first)
{
	char path[PATH_LEN];
	int fd, r = 0;

	segment_path(s, first, path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (s->nseg && s->seg[s->nseg - 1].first == first)
		s->seg[s->nseg - 1] = (struct segment){ .first = first, .end = first };
	else
		r = add_segment(s, (struct segment){ .first = first, .end = first });
	if (r < 0) {
		close(fd);
		return r;
	}
	s->fd = fd;
	s->dir_dirty = true;
	s->fresh = false;
	return 0;
}

static int sync_file(struct spool *s)
{
	if (s->fd >= 0 && s->file_dirty && fdatasync(s->fd) < 0)
		return -errno;
	s->file_dirty = false;
	return 0;
}

static int segment_for(struct spool *s, uint64_t seq, size_t len)
{
	struct segment *g = s->nseg ? &s->seg[s->nseg - 1] : NULL;
	char path[PATH_LEN];
	int r;

	if (!g || s->fresh || g->end != seq || g->size + len > SEGMENT_MAX) {
		r = sync_file(s);
		if (r < 0)
			return r;
		if (s->fd >= 0)
			close(s->fd);
		s->fd = -1;
		return new_segment(s, seq);
	}
	if (s->fd >= 0)
		return 0;
	segment_path(s, g->first, path);
	s->fd = open(path, O_WRONLY | O_CLOEXEC);
	return s->fd < 0 ? -errno : 0;
}

static int write_record(struct spool *s, const struct waiting *w)
{
	struct segment *g;
	int r = segment_for(s, w->seq, segment_record_size(w->len));

	if (r < 0)
		return r;
	g = &s->seg[s->nseg - 1];
	s->file_dirty = true;
	r = segment_write(s->fd, g->size, w->seq, w->data, w->len);
	if (r < 0)
		return r;
	g->size += segment_record_size(w->len);
	g->end = w->seq + 1;
	return 0;
}

static int write_out(struct spool *s)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < s->nwait; i++)
		r = write_record(s, &s->wait[i]);
	if (r == 0)
		r = sync_file(s);
	return r == 0 ? sync_dir(s) : r;
}

/* A try failed: segments are again the nseg ones that were there, the last of them as it was. */
static void take_back(struct spool *s, size_t nseg, struct segment last)
{
	char path[PATH_LEN];

	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->file_dirty = false;
	s->fresh = true;
	for (; s->nseg > nseg; s->nseg--) {
		segment_path(s, s->seg[s->nseg - 1].first, path);
		unlink(path);	/* or it begins anew by the same name */
	}
	if (!nseg)
		return;
	segment_path(s, last.first, path);
	(void)!truncate(path, (off_t)last.size);	/* for the room; what stays is hidden by the next file */
	s->seg[nseg - 1] = last;
}

int spool_sync(struct spool *s)
{
	const size_t nseg = s->nseg;
	const struct segment last = nseg ? s->seg[nseg - 1] : (struct segment){ 0 };
	int r = confirm(s);

	if (r < 0)
		return r;
	if (!s->nwait)
		return sync_dir(s);
	r = write_out(s);
	if (r < 0) {
		take_back(s, nseg, last);
		return r;
	}
	for (unsigned i = 0; i < s->nwait; i++)
		free(s->wait[i].data);
	s->nwait = 0;
	s->wait_bytes = 0;
	trim(s);
	return 0;
}

uint64_t spool_next_seq(const struct spool *s)
{
	return s->next;
}

int spool_append(struct spool *s, const void *data, size_t len, uint64_t *ret_seq)
{
	struct waiting *w;

	if (len > SEGMENT_RECORD_MAX)
		return -EMSGSIZE;
	if ((s->nwait == MEMORY_MAX || s->wait_bytes + len > MEMORY_BYTES) && spool_sync(s) < 0)
		return -ENOSPC;
	w = &s->wait[s->nwait];
	w->data = malloc(len ? len : 1);
	if (!w->data)
		return -ENOMEM;
	memcpy(w->data, data, len);
	w->seq = s->next;
	w->len = len;
	s->nwait++;
	s->wait_bytes += len;
	*ret_seq = s->next++;
	return 0;
}

/* ---- reading ---- */

static struct segment *segment_with(const struct spool *s, uint64_t after)
{
	const size_t n = s->nseg - s->unsure;

	for (size_t i = 0; i < n; i++)
		if (s->seg[i].end > s->seg[i].first && s->seg[i].end > after + 1)
			return &s->seg[i];
	return NULL;
}

/* Record `want` of g. -ENODATA: from *ret_bad on it is broken or gone now, and was whole at open. */
static int read_record(struct spool *s, const struct segment *g, uint64_t want, char **ret_data, size_t *ret_len, uint64_t *ret_bad)
{
	uint64_t seq = g->first, off = 0;
	char path[PATH_LEN], *data = NULL;
	size_t len = 0;
	int fd, r;

	if (s->at_first == g->first && s->at_seq <= want) {
		seq = s->at_seq;
		off = s->at_off;
	}
	segment_path(s, g->first, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {	/* somebody made room */
		*ret_bad = g->first;
		return -ENODATA;
	}
	if (fd < 0)
		return -errno;
	while ((r = segment_read(fd, off, seq, &data, &len)) == 0) {
		off += segment_record_size(len);
		if (seq++ == want)
			break;
		free(data);
	}
	close(fd);
	if (r < 0) {
		*ret_bad = seq;
		return r == -EIO ? -ENODATA : r;
	}
	s->at_first = g->first;
	s->at_seq = seq;
	s->at_off = off;
	*ret_data = data;
	*ret_len = len;
	return 0;
}

int spool_read(struct spool *s, uint64_t after, uint64_t *ret_seq, char **ret_data, size_t *ret_len)
{
	struct segment *g;

	while ((g = segment_with(s, after))) {
		const uint64_t want = MAX_OF(after + 1, g->first);
		uint64_t bad = 0;
		int r = read_record(s, g, want, ret_data, ret_len, &bad);

		if (r == 0)
			*ret_seq = want;
		if (r != -ENODATA)
			return r;
		if (g->end > MAX_OF(bad, s->acked + 1))	/* [S2] */
			s->lost += g->end - MAX_OF(bad, s->acked + 1);
		g->end = bad;
	}
	return -ENOENT;
}

void spool_unread(struct spool *s)
{
	s->unread = true;
}

int spool_ack(struct spool *s, uint64_t seq)
{
	char path[PATH_LEN], text[64];
	int n;

	if (seq <= s->acked)
		return 0;
	s->acked = seq;
	snprintf(path, sizeof(path), "%s/acked", s->dir);
	n = snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 "\n", seq, seq);
	return file_replace(path, text, (size_t)n, false);
}

uint64_t spool_acked(const struct spool *s)
{
	return s->acked;
}

uint64_t spool_lost(const struct spool *s)
{
	return s->lost;
}
