/* scenario_words.h - part of scenario.c: what a scenario is, and a step of its file word by word; each mistake is told with its line. */
#pragma once

#define WORDS 40

struct scenario {
	const char *path;
	char *text, *next;		/* what is left to read */
	unsigned line;
	char *word[WORDS];
	unsigned nwords, at;		/* words of the step, the next one to be taken */
	struct policy policy;
	void *blob, *mem;
	size_t size;
	struct judge judge;
	struct mono now;
	uint64_t reviewed_s;
	uint32_t decisions;
	_Atomic uint64_t counter[AC_COUNT];
};

struct ends {				/* what of "SRC[:PORT] > DST[:PORT]" */
	struct prefix src, dst;
	uint16_t sport, dport;
	bool anywhere;
};

__attribute__((format(printf, 2, 3), noreturn)) static void fail(const struct scenario *s, const char *fmt, ...)
{
	char why[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	printf("not ok - %s:%u: %s\n", s->path, s->line, why);
	exit(1);
}

static const char *take(struct scenario *s, const char *what)
{
	if (s->at == s->nwords)
		fail(s, "%s expected", what);
	return s->word[s->at++];
}

static bool take_if(struct scenario *s, const char *word)
{
	if (s->at == s->nwords || strcmp(s->word[s->at], word) != 0)
		return false;
	s->at++;
	return true;
}

static void take_word(struct scenario *s, const char *word)
{
	if (!take_if(s, word))
		fail(s, "\"%s\" expected%s%s", word, s->at < s->nwords ? ", not " : "", s->at < s->nwords ? s->word[s->at] : "");
}

static uint64_t take_number(struct scenario *s, const char *what)
{
	const char *text = take(s, what);
	char *end;
	const uint64_t n = strtoull(text, &end, 10);

	if (end == text || *end)
		fail(s, "%s expected, not %s", what, text);
	return n;
}

static uint64_t take_size(struct scenario *s)
{
	const char *text = take(s, "size");
	uint64_t n;

	if (parse_size(text, &n) < 0)
		fail(s, "%s is not a size", text);
	return n;
}

static uint64_t take_ns(struct scenario *s)
{
	const char *text = take(s, "duration");
	size_t len = strlen(text);
	uint64_t n;

	if (len > 2 && strcmp(text + len - 2, "ms") == 0)
		return strtoull(text, NULL, 10) * NS_PER_MS;
	if (parse_duration(text, &n) < 0)
		fail(s, "%s is not a duration", text);
	return n * NS_PER_S;
}

static struct prefix prefix_of(struct scenario *s, const char *text, uint16_t *ret_port)
{
	char copy[80], *port = NULL, *host = copy;
	struct prefix p;

	snprintf(copy, sizeof(copy), "%s", text);
	if (*copy == '[') {
		host++;
		port = strchr(copy, ']');
		if (!port)
			fail(s, "%s: ] is missing", text);
		*port++ = '\0';
	} else if (strchr(copy, ':') == strrchr(copy, ':')) {
		port = strchr(copy, ':');
	}
	*ret_port = port && *port == ':' ? (uint16_t)strtoul(port + 1, NULL, 10) : 0;
	if (port)
		*port = '\0';
	if (prefix_parse(host, &p) < 0)
		fail(s, "%s is not an address", text);
	return p;
}

static struct ends take_ends(struct scenario *s, bool both)
{
	struct ends e = { .src = prefix_of(s, take(s, "address"), &e.sport) };

	if (both)
		take_word(s, ">");
	e.anywhere = (!both && !take_if(s, ">")) || take_if(s, "any");
	if (!e.anywhere)
		e.dst = prefix_of(s, take(s, "address"), &e.dport);
	return e;
}

static void take_end(struct scenario *s)
{
	if (s->at < s->nwords)
		fail(s, "too much: %s", s->word[s->at]);
}

/* False: the file has ended. */
static bool next_step(struct scenario *s)
{
	char *line = s->next, *save = NULL;

	if (!*line)
		return false;
	s->next = line + strcspn(line, "\n");
	if (*s->next)
		*s->next++ = '\0';
	s->line++;
	line[strcspn(line, "#")] = '\0';
	s->nwords = s->at = 0;
	for (char *w = strtok_r(line, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
		if (s->nwords == WORDS)
			fail(s, "more than %d words", WORDS);
		s->word[s->nwords++] = w;
	}
	return true;
}
