/* time_servers.c - see time_servers.h. */
#include "time_servers.h"

#include <ctype.h>
#include <dirent.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "log.h"

#define FILE_MAX     65536
#define FOLDER_FILES 64
#define STACK	     (256 << 10)	/* of a thread that looks a name up */
#define NAME_ADDRS   8		/* of one name: a pool answers with four of each family */
#define BLANK	     " \t\r"

/* ---- what the files say ---- */

static bool is_name(const char *word)
{
	bool letter = false;
	size_t len = strlen(word);

	if (len >= TIME_SERVERS_NAME || word[0] == '-' || word[0] == '.')
		return false;
	for (const char *c = word; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
			return false;
		letter = letter || isalpha((unsigned char)*c);
	}
	return letter;
}

/* A clock on board is 127.127.t.u to ntpd. */
static bool is_own(const struct addr *a)
{
	static const struct addr one = { .b[15] = 1 }, none;

	return (addr_is_v4(a) && (a->b[12] == 127 || a->b[12] == 0)) || addr_cmp(a, &one) == 0 || addr_cmp(a, &none) == 0;
}

static void add_addr(struct time_servers *s, const struct addr *a)
{
	if (is_own(a))
		return;
	for (uint32_t i = 0; i < s->naddrs; i++)
		if (addr_cmp(&s->addr[i], a) == 0)
			return;
	if (s->naddrs < TIME_SERVERS_MAX)
		s->addr[s->naddrs++] = *a;
	else
		s->left_out++;
}

void time_servers_add(struct time_servers *s, const char *word)
{
	struct addr a;

	if (addr_parse(word, &a) == 0) {
		add_addr(s, &a);
		return;
	}
	if (!is_name(word))
		return;
	for (uint32_t i = 0; i < s->nnames; i++)
		if (strcasecmp(s->name[i], word) == 0)
			return;
	if (s->nnames < TIME_SERVERS_MAX)
		snprintf(s->name[s->nnames++], TIME_SERVERS_NAME, "%s", word);
	else
		s->left_out++;
}

/* server [-4|-6] NAME OPTION... */
static void ntp_line(char *line, struct time_servers *s)
{
	char *save = NULL, *word = strtok_r(line, BLANK, &save);

	if (!word || (strcasecmp(word, "server") != 0 && strcasecmp(word, "pool") != 0 && strcasecmp(word, "peer") != 0))
		return;
	word = strtok_r(NULL, BLANK, &save);
	while (word && word[0] == '-')
		word = strtok_r(NULL, BLANK, &save);
	if (word)
		time_servers_add(s, word);
}

/* sourcedir FOLDER..., confdir FOLDER...; true: it was one. */
static bool folder_line(char *line, void (*folder)(void *ctx, const char *path, bool sources), void *ctx)
{
	static const char *const keys[] = { "confdir", "sourcedir" };

	line += strspn(line, BLANK);
	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
		size_t len = strlen(keys[i]);
		char *save = NULL;

		if (strncasecmp(line, keys[i], len) != 0 || !line[len] || !strchr(BLANK, line[len]))
			continue;
		for (char *path = strtok_r(line + len, BLANK, &save); path; path = strtok_r(NULL, BLANK, &save))
			if (path[0] == '/')
				folder(ctx, path, i == 1);
		return true;
	}
	return false;
}

/* NTP=NAME... or FallbackNTP=NAME... below [Time] */
static void timesyncd_line(char *line, bool *in_time, struct time_servers *s)
{
	char *save = NULL, *value;
	size_t key;

	line += strspn(line, BLANK);
	if (line[0] == '[')
		*in_time = strncmp(line, "[Time]", 6) == 0;
	value = strchr(line, '=');
	if (!value || !*in_time)
		return;
	for (key = (size_t)(value - line); key && strchr(BLANK, line[key - 1]); key--)
		;
	line[key] = '\0';
	if (strcmp(line, "NTP") != 0 && strcmp(line, "FallbackNTP") != 0)
		return;
	for (char *word = strtok_r(value + 1, BLANK, &save); word; word = strtok_r(NULL, BLANK, &save))
		time_servers_add(s, word);
}

/* A line that ends in a backslash goes on in the next. */
static void join_lines(char *text)
{
	for (char *c = strstr(text, "\\\n"); c; c = strstr(c, "\\\n"))
		c[0] = c[1] = ' ';
}

void time_servers_parse(enum time_syntax syntax, char *text, struct time_servers *s,
			void (*folder)(void *ctx, const char *path, bool sources), void *ctx)
{
	char *save = NULL;
	bool in_time = false;

	if (syntax == TIME_TIMESYNCD)
		join_lines(text);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (syntax == TIME_TIMESYNCD)
			timesyncd_line(line, &in_time, s);
		else if (syntax != TIME_CHRONY || !folder || !folder_line(line, folder, ctx))
			ntp_line(line, s);
	}
}

/* ---- the files ---- */

struct reading {
	const char *root;
	struct time_servers *s;
};

static void read_one(const char *root, const char *path, enum time_syntax syntax, struct time_servers *s,
		     void (*folder)(void *ctx, const char *path, bool sources), void *ctx)
{
	char full[CONFIG_PATH * 2], *text;
	size_t len;

	if ((size_t)snprintf(full, sizeof(full), "%s%s", root, path) >= sizeof(full) ||
	    config_read_file(full, FILE_MAX, &text, &len) < 0)
		return;
	time_servers_parse(syntax, text, s, folder, ctx);
	free(text);
}

static bool ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), e = strlen(end);

	return n > e && strcmp(name + n - e, end) == 0;
}

static void read_folder(const struct reading *r, const char *path, const char *end, enum time_syntax syntax)
{
	char full[CONFIG_PATH * 2];
	const struct dirent *d;
	unsigned files = 0;
	DIR *dir;

	if ((size_t)snprintf(full, sizeof(full), "%s%s", r->root, path) >= sizeof(full))
		return;
	dir = opendir(full);
	while (dir && files < FOLDER_FILES && (d = readdir(dir))) {
		if (!ends_in(d->d_name, end))
			continue;
		files++;
		if ((size_t)snprintf(full, sizeof(full), "%s/%s", path, d->d_name) < sizeof(full))
			read_one(r->root, full, syntax, r->s, NULL, NULL);	/* their own folders are not followed */
	}
	if (dir)
		closedir(dir);
}

static void chrony_folder(void *ctx, const char *path, bool sources)
{
	read_folder(ctx, path, sources ? ".sources" : ".conf", TIME_CHRONY);
}

void time_servers_read(const char *root, struct time_servers *s)
{
	static const struct {
		const char *path;
		enum time_syntax syntax;
	} known[] = {
		{ "/etc/ntp.conf", TIME_NTP },
		{ "/etc/ntpsec/ntp.conf", TIME_NTP },
		{ "/etc/chrony/chrony.conf", TIME_CHRONY },
		{ "/etc/systemd/timesyncd.conf", TIME_TIMESYNCD },
	};
	struct reading r = { root, s };

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		read_one(root, known[i].path, known[i].syntax, s, chrony_folder, &r);
	read_folder(&r, "/etc/systemd/timesyncd.conf.d", ".conf", TIME_TIMESYNCD);
}

/* ---- names ---- */

struct lookup {			/* of a name, by a thread that ends when it is answered */
	char name[TIME_SERVERS_NAME];	/* stays while busy */
	bool busy;
	uint32_t n;
	struct addr addr[NAME_ADDRS];
};

/* Not getaddrinfo_a(): glibc's gai_suspend() (2.36) can wait for ever, whatever its timeout. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static struct lookup lookups[TIME_SERVERS_MAX];

static uint32_t take_answer(const struct addrinfo *i, struct addr *to)
{
	uint32_t n = 0;

	for (; i && n < NAME_ADDRS; i = i->ai_next) {
		struct addr a;

		if (i->ai_family == AF_INET)
			a = addr_from_v4(&((const struct sockaddr_in *)i->ai_addr)->sin_addr);
		else if (i->ai_family == AF_INET6)
			a = addr_from_v6(&((const struct sockaddr_in6 *)i->ai_addr)->sin6_addr);
		else
			continue;
		if (!is_own(&a))
			to[n++] = a;
	}
	return n;
}

static void *look_up(void *arg)
{
	static const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM };
	struct addr found[NAME_ADDRS];
	struct lookup *l = arg;
	struct addrinfo *answer = NULL;
	uint32_t n = 0;

	if (getaddrinfo(l->name, NULL, &hints, &answer) == 0) {
		n = take_answer(answer, found);
		freeaddrinfo(answer);
	}
	pthread_mutex_lock(&lock);
	if (n) {		/* else the last answer stays */
		memcpy(l->addr, found, n * sizeof(*found));
		l->n = n;
	}
	l->busy = false;
	pthread_cond_signal(&answered);
	pthread_mutex_unlock(&lock);
	return NULL;
}

static bool is_named(const struct time_servers *s, const char *name)
{
	for (uint32_t i = 0; i < s->nnames; i++)
		if (strcasecmp(s->name[i], name) == 0)
			return true;
	return false;
}

/* The name's lookup, or a place for it that no name of today has; NULL: all wait for names of yesterday. */
static struct lookup *lookup_of(const struct time_servers *s, const char *name)
{
	struct lookup *spare = NULL;

	for (unsigned i = 0; i < TIME_SERVERS_MAX; i++) {
		struct lookup *l = &lookups[i];

		if (strcasecmp(l->name, name) == 0)
			return l;
		if (!spare && !l->busy && !is_named(s, l->name))
			spare = l;
	}
	if (!spare)
		return NULL;
	memset(spare, 0, sizeof(*spare));
	snprintf(spare->name, sizeof(spare->name), "%s", name);
	return spare;
}

static void ask(struct lookup *l)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;

	if (l->busy || pthread_attr_init(&attr) != 0)
		return;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);	/* signals are the main thread's */
	l->busy = pthread_create(&thread, &attr, look_up, l) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
}

static bool any_busy(struct lookup *const *of, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (of[i] && of[i]->busy)
			return true;
	return false;
}

/* [TS2] */
static void wait_for(struct lookup *const *of, uint32_t n)
{
	struct timespec end;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += TIME_SERVERS_WAIT_MS / 1000;
	while (r == 0 && any_busy(of, n))
		r = pthread_cond_clockwait(&answered, &lock, CLOCK_MONOTONIC, &end);
}

static size_t put(struct prefix *to, size_t n, size_t max, const struct addr *a, uint32_t *left_out)
{
	for (size_t i = 0; i < n; i++)
		if (addr_cmp(&to[i].addr, a) == 0)
			return n;
	if (n == max) {
		++*left_out;
		return n;
	}
	to[n] = (struct prefix){ .addr = *a, .len = 128 };
	return n + 1;
}

/* [TS3]; locked */
static void tell(const struct time_servers *s, struct lookup *const *of, uint32_t left_out)
{
	char names[200] = "";
	size_t at = 0;

	for (uint32_t i = 0; i < s->nnames; i++) {
		if (of[i] && of[i]->n)
			continue;
		if (at < sizeof(names))
			at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", at ? ", " : "", s->name[i]);
	}
	if (at)
		log_warning("servers without an address, not protected: %s%s; egressctl reload asks again", names,
			    at < sizeof(names) ? "" : "...");
	if (left_out)
		log_warning("time servers beyond the places there are, not protected: %u; name them under protect in the policy",
			    left_out);
}

size_t time_servers_addresses(const struct time_servers *s, struct prefix *to, size_t max)
{
	struct lookup *of[TIME_SERVERS_MAX] = { 0 };
	uint32_t left_out = s->left_out;
	size_t n = 0;

	for (uint32_t i = 0; i < s->naddrs; i++)
		n = put(to, n, max, &s->addr[i], &left_out);
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < s->nnames; i++) {
		of[i] = lookup_of(s, s->name[i]);
		if (of[i])
			ask(of[i]);
	}
	wait_for(of, s->nnames);
	for (uint32_t i = 0; i < s->nnames; i++)
		for (uint32_t k = 0; of[i] && k < of[i]->n; k++)
			n = put(to, n, max, &of[i]->addr[k], &left_out);
	tell(s, of, left_out);
	pthread_mutex_unlock(&lock);
	return n;
}
