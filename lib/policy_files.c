/* policy_files.c - networks_file: one network a line, '#' begins a comment. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "policy_doc.h"

#define FILE_ERRORS 10		/* of one file; the rest is like them */
#define LINE_MAX_TEXT 100

struct lines {
	struct policy_doc *d;
	const struct yaml_node *n;	/* where the policy names the file */
	struct doc_destination *dest;
	const char *path;
	uint32_t line, errors;
};

/* What is no network may be no file of networks, and whoever applies a policy may not be the one who may read it: no word of it. */
static void line_error(struct lines *l, const char *text, int r, const struct prefix *p)
{
	char buf[PREFIX_STRLEN], hint[100] = "";

	l->errors++;
	if (l->errors > FILE_ERRORS)
		return;
	if (r == -ERANGE) {
		snprintf(hint, sizeof(hint), "write %s", prefix_format(p, buf));
		DOC_ERROR(l->d, l->n, hint, "%.80s:%u: '%.60s' has bits set beyond its length", l->path, l->line, text);
	} else {
		DOC_ERROR(l->d, l->n, "one network a line, such as 203.0.113.0/24; '#' begins a comment",
			  "%.80s:%u: not an address or network", l->path, l->line);
	}
}

static void one_line(struct lines *l, const char *s, size_t len)
{
	char text[LINE_MAX_TEXT + 1], what[120];
	const char *hash = memchr(s, '#', len);
	struct doc_place at = doc_at(l->n);
	struct prefix p;
	int r;

	if (hash)
		len = (size_t)(hash - s);
	while (len && isspace((unsigned char)s[len - 1]))
		len--;
	while (len && isspace((unsigned char)*s)) {
		s++;
		len--;
	}
	if (!len)
		return;
	memcpy(text, s, MIN_OF(len, (size_t)LINE_MAX_TEXT));
	text[MIN_OF(len, (size_t)LINE_MAX_TEXT)] = '\0';
	r = strlen(text) == len ? prefix_parse(text, &p) : -EINVAL;	/* a NUL or a very long line is no network */
	if (r < 0) {
		line_error(l, text, r, &p);
		return;
	}
	snprintf(what, sizeof(what), "%.80s:%u", l->path, l->line);
	if (l->errors < FILE_ERRORS && !doc_by_64(l->d, &at, what, &p))
		l->errors++;
	l->dest->net[l->dest->nnets++] = p;
}

static int add_lines(struct lines *l, const char *text, size_t len)
{
	const char *s = text, *end = text + len;
	struct prefix *net;
	size_t count = 1;

	for (const char *c = text; (c = memchr(c, '\n', (size_t)(end - c))); c++)
		count++;
	if (count > DOC_NETWORKS - l->d->nnetworks) {
		DOC_ERROR(l->d, l->n, NULL, "%.80s: more than %u networks in all", l->path, DOC_NETWORKS);
		return 0;
	}
	net = arena_array(l->d->mem, l->dest->nnets + count, sizeof(*net));
	if (!net)
		return -ENOMEM;
	if (l->dest->nnets)
		memcpy(net, l->dest->net, l->dest->nnets * sizeof(*net));
	l->dest->net = net;
	while (s < end) {
		const char *nl = memchr(s, '\n', (size_t)(end - s));
		size_t n = nl ? (size_t)(nl - s) : (size_t)(end - s);

		l->line++;
		one_line(l, s, n);
		s += n + 1;
	}
	l->d->nnetworks += (uint32_t)count;
	return 0;
}

static const char *remedy(int e)
{
	_Static_assert(POLICY_NETWORKS_MAX == 4U << 20, "the text below");
	switch (e) {
	case -EACCES:
		return "egressd's group must be able to read it and its folder";
	case -EFBIG:
		return "at most 4 MiB; networks within another one need no line";
	default:
		return "a file with one network a line is expected there; or write networks: [...]";
	}
}

int doc_networks_file(struct policy_doc *d, const struct yaml_node *n, struct doc_destination *dest)
{
	struct lines l = { .d = d, .n = n, .dest = dest, .path = doc_text(d, n, "networks_file") };
	uint32_t before = dest->nnets;
	char *text;
	size_t len;
	int r;

	if (!l.path)
		return 0;
	if (l.path[0] != '/') {
		DOC_ERROR(d, n, "write the whole path, such as /etc/egressd/backup-cloud.txt",
			  "networks_file: '%.80s' is not an absolute path", l.path);
		return 0;
	}
	if (!d->env->read_file) {
		DOC_ERROR(d, n, "write the networks into the policy: networks: [...]",
			  "networks_file: files cannot be read here");
		return 0;
	}
	r = d->env->read_file(d->env->ctx, l.path, &text, &len);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		DOC_ERROR(d, n, remedy(r), "networks_file: %.80s: %s", l.path, strerrordesc_np(-r));
		return 0;
	}
	r = add_lines(&l, text, len);
	free(text);
	if (r == 0 && l.errors > FILE_ERRORS)
		DOC_ERROR(d, n, NULL, "%.80s: and %u more such lines", l.path, l.errors - FILE_ERRORS);
	else if (r == 0 && !l.errors && dest->nnets == before)
		DOC_ERROR(d, n, "one network a line is expected, such as 203.0.113.0/24", "networks_file: %.80s holds no network", l.path);
	return r;
}
