/* ctl.c - egressctl: which verb, with which arguments? */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control_bounds.h"
#include "ctl.h"
#include "ctl_replay.h"
#include "yaml_tree.h"

enum option { OPT_FOR = 1, OPT_BUDGET = 2, OPT_REASON = 4, OPT_CONFIRM = 8, OPT_FORMAT = 16, OPT_CONFIG = 32 };

struct verb {
	const char *name;
	unsigned min, max;		/* arguments */
	unsigned may, must;		/* enum option */
	const char *keys[2];		/* what the arguments are in the request */
	void (*show)(const json_t *reply);	/* NULL: nothing to show */
	int (*run)(const struct ctl *c);	/* instead of a plain request */
	const char *usage;
};

static int debug(const struct ctl *c);
static int explain(const struct ctl *c);

static const struct verb verbs[] = {
	{ "status", 0, 0, 0, 0, { 0 }, ctl_show_status, NULL, "status" },
	{ "findings", 0, 0, 0, 0, { 0 }, ctl_show_findings, NULL, "findings" },
	{ "why", 1, 2, 0, 0, { "host", "dest" }, ctl_show_why, NULL, "why HOST [DEST]" },
	{ "explain", 1, 1, 0, 0, { "id" }, ctl_show_explain, explain, "explain ID" },
	{ "blocks", 0, 0, 0, 0, { 0 }, ctl_show_blocks, NULL, "blocks" },
	{ "unblock", 1, 2, OPT_FOR | OPT_BUDGET | OPT_REASON, OPT_REASON, { "host", "dest" }, ctl_show_unblock, NULL,
	  "unblock HOST [DEST] --reason TEXT [--budget SIZE] [--for TIME]" },
	{ "allow", 2, 2, OPT_FOR | OPT_BUDGET | OPT_REASON, OPT_FOR | OPT_BUDGET | OPT_REASON, { "host", "dest" },
	  ctl_show_change, NULL, "allow HOST DEST --budget SIZE --for TIME --reason TEXT" },
	{ "block", 1, 2, OPT_FOR | OPT_REASON, OPT_FOR | OPT_REASON, { "host", "dest" }, ctl_show_change, NULL,
	  "block HOST [DEST] --for TIME --reason TEXT" },
	{ "observe", 0, 0, OPT_FOR | OPT_REASON, OPT_FOR | OPT_REASON, { 0 }, ctl_show_change, NULL,
	  "observe --for TIME --reason TEXT   (--for 0s ends it)" },
	{ "check", 1, 1, OPT_FORMAT | OPT_CONFIG, 0, { 0 }, NULL, ctl_check,
	  "check POLICY [-c CONFIG] [--format json|github]" },
	{ "apply", 1, 1, OPT_CONFIRM | OPT_CONFIG | OPT_REASON, 0, { 0 }, NULL, ctl_apply,
	  "apply FILE [-c CONFIG] [--confirm TIME] [--reason TEXT]" },
	{ "confirm", 0, 0, OPT_REASON, 0, { 0 }, NULL, ctl_confirm, "confirm [--reason TEXT]" },
	{ "reload", 0, 0, OPT_REASON, 0, { 0 }, ctl_show_change, NULL, "reload [--reason TEXT]" },
	{ "replay", 0, 0, 0, 0, { 0 }, NULL, NULL, "replay --policy POLICY [-c CONFIG] [--json] PCAP" },
	{ "debug", 1, 1, 0, 0, { 0 }, NULL, debug, "debug check" },
};

/* Of the manual, for later versions. */
static const char *const later[] = { "top", "push", "diff", "rollback", "test", "doctor", "init" };

static const struct {
	const char *name, *value;	/* "--for TIME" */
	size_t at;			/* in struct ctl */
	unsigned bit;
} options[] = {
	{ "--for", "TIME", offsetof(struct ctl, time), OPT_FOR },
	{ "--budget", "SIZE", offsetof(struct ctl, budget), OPT_BUDGET },
	{ "--reason", "TEXT", offsetof(struct ctl, reason), OPT_REASON },
	{ "--confirm", "TIME", offsetof(struct ctl, confirm), OPT_CONFIRM },
	{ "--format", "json|github", offsetof(struct ctl, format), OPT_FORMAT },
	{ "-c", "CONFIG", offsetof(struct ctl, config), OPT_CONFIG },
	{ "--socket", "PATH", offsetof(struct ctl, socket), 0 },
};

static int usage(FILE *to)
{
	fputs("usage: egressctl [--socket PATH] [--json] VERB ...\n"
	      "       egressctl --help | --version | VERB --help\n", to);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(to, "  %s\n", verbs[i].usage);
	return to == stdout ? CTL_OK : CTL_USAGE;
}

static int usage_of(const struct verb *v, FILE *to)
{
	fprintf(to, "usage: egressctl %s\n", v->usage);
	return to == stdout ? CTL_OK : CTL_USAGE;
}

static const struct verb *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

/* ---- command line ---- */

struct line {
	char **v;
	int n, at;
};

/* "--name value" or "--name=value" at the line's place: 1 and *ret, 0 another word, -1 the value is missing. */
static int option(struct line *l, const char *name, const char **ret)
{
	const char *word = l->v[l->at];
	size_t len = strlen(name);

	if (strncmp(word, name, len) != 0 || (word[len] && word[len] != '='))
		return 0;
	if (word[len] == '=') {
		*ret = word + len + 1;
	} else if (l->at + 1 < l->n) {
		*ret = l->v[++l->at];
	} else {
		ctl_complain("%s: a value is missing", name);
		return -1;
	}
	return 1;
}

static int any_option(struct line *l, struct ctl *c, unsigned *given)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		int r = option(l, options[i].name, (const char **)((char *)c + options[i].at));

		if (r > 0)
			*given |= options[i].bit;
		if (r != 0)
			return r;
	}
	ctl_complain("unknown option %s", l->v[l->at]);
	return -1;
}

static bool is_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* 0; 1: help is asked for; -1 and said why. */
static int parse(struct line *l, struct ctl *c, unsigned *given)
{
	bool plain = false;

	for (; l->at < l->n; l->at++) {
		const char *word = l->v[l->at];

		if (!plain && strcmp(word, "--") == 0) {
			plain = true;
		} else if (!plain && is_help(word)) {
			return 1;
		} else if (!plain && strcmp(word, "--json") == 0) {
			c->json = true;
		} else if (!plain && word[0] == '-' && word[1]) {
			if (any_option(l, c, given) < 0)
				return -1;
		} else if (c->narg == CTL_ARGS) {
			ctl_complain("too many arguments: %s", word);
			return -1;
		} else {
			c->arg[c->narg++] = word;
		}
	}
	return 0;
}

/* "HOST": argument i as the usage line names it. */
static const char *argument(const struct verb *v, unsigned i, char buf[16])
{
	const char *p = v->usage;

	for (unsigned skip = i + 1; skip > 0 && p; skip--)
		p = strchr(p, ' ') ? strchr(p, ' ') + 1 : NULL;
	p = p ? p + (*p == '[') : "ARGUMENT";
	snprintf(buf, 16, "%.*s", (int)strcspn(p, " ]"), p);
	return buf;
}

static int wrong_options(const struct verb *v, unsigned given)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (given & ~v->may & options[i].bit)
			ctl_complain("%s: not an option of %s", options[i].name, v->name);
		else if (v->must & ~given & options[i].bit)
			ctl_complain("%s: %s %s is missing", v->name, options[i].name, options[i].value);
	}
	return given & ~v->may || v->must & ~given;
}

static bool is_utf8(const char *text)
{
	json_t *o = json_string(text);

	json_decref(o);
	return o != NULL;
}

static int fits(const struct verb *v, const struct ctl *c, unsigned given)
{
	bool wrong = wrong_options(v, given);
	char name[16];

	if (c->narg < v->min)
		ctl_complain("%s: %s is missing", v->name, argument(v, c->narg, name));
	if (c->narg > v->max)
		ctl_complain("%s: one argument too many: %s", v->name, c->arg[v->max]);
	if (wrong || c->narg < v->min || c->narg > v->max)
		return usage_of(v, stderr);
	for (unsigned i = 0; i < c->narg; i++) {
		bool sent = i < ARRAY_SIZE(v->keys) && v->keys[i], wide = sent && strlen(c->arg[i]) > CONTROL_NAME_MAX;

		if (*c->arg[i] && !wide && (!sent || is_utf8(c->arg[i])))
			continue;
		ctl_complain("%s: %s is %s", v->name, argument(v, i, name), wide ? "too long" : *c->arg[i] ? "not UTF-8" : "empty");
		return CTL_USAGE;
	}
	if (c->reason && !*c->reason) {
		ctl_complain("--reason: say why, it is logged");
		return CTL_USAGE;
	}
	if (c->reason && !is_utf8(c->reason)) {
		ctl_complain("--reason: not UTF-8: %s", c->reason);
		return CTL_USAGE;
	}
	if (c->reason && strlen(c->reason) > CONTROL_REASON_MAX) {
		ctl_complain("--reason: %zu bytes; at most %u are kept", strlen(c->reason), CONTROL_REASON_MAX);
		return CTL_USAGE;
	}
	return CTL_OK;
}

/* ---- requests ---- */

static int add_units(const struct ctl *c, const struct verb *v, json_t *o)
{
	uint64_t n, least = strcmp(v->name, "observe") == 0 ? 0 : 1;	/* observe: 0s ends it */

	if (c->time) {
		if (parse_duration(c->time, &n) < 0) {
			ctl_complain("--for %s: a duration such as 30m, 1h or 2d is expected", c->time);
			return CTL_USAGE;
		}
		if (n < least || n > CONTROL_FOR_MAX) {
			ctl_complain("--for %s: %" PRIu64 "s to 366d is expected", c->time, least);
			return CTL_USAGE;
		}
		json_object_set_new(o, "for_s", json_integer((json_int_t)n));
	}
	if (c->budget) {
		if (parse_size(c->budget, &n) < 0) {
			ctl_complain("--budget %s: a size such as 500MB or 1GiB is expected", c->budget);
			return CTL_USAGE;
		}
		if (n < 1 || n > CONTROL_BUDGET_MAX) {
			ctl_complain("--budget %s: 1B to 1024TiB is expected", c->budget);
			return CTL_USAGE;
		}
		json_object_set_new(o, "budget_bytes", json_integer((json_int_t)n));
	}
	if (c->reason)
		json_object_set_new(o, "reason", json_string(c->reason));
	return CTL_OK;
}

static int answer(const struct ctl *c, json_t *request, void (*show)(const json_t *reply))
{
	json_t *reply = ctl_ask(c, request);
	int code;

	if (!reply)
		return CTL_NO;
	code = ctl_verdict(reply);
	if (c->json)
		ctl_print_json(reply);
	else if (code == CTL_OK && show)
		show(reply);
	json_decref(reply);
	return code;
}

static int request(const struct ctl *c, const struct verb *v)
{
	json_t *o = json_object();
	int code;

	json_object_set_new(o, "verb", json_string(v->name));
	for (unsigned i = 0; i < c->narg; i++)
		json_object_set_new(o, v->keys[i], json_string(c->arg[i]));
	code = add_units(c, v, o);
	if (code == CTL_OK)
		return answer(c, o, v->show);
	json_decref(o);
	return code;
}

/* "1f0a5c3e00000007" or with its revision, "1f0a5c3e00000007-2" */
static int explain(const struct ctl *c)
{
	size_t n = strspn(c->arg[0], "0123456789abcdefABCDEF");

	if (n > 0 && n <= 16 && (!c->arg[0][n] || c->arg[0][n] == '-'))
		return request(c, find("explain"));
	ctl_complain("explain %s: the id of a finding is expected, up to 16 hex digits, as `egressctl findings` shows it", c->arg[0]);
	return CTL_USAGE;
}

static void show_debug(const json_t *reply)
{
	(void)reply;
	puts("ok: every structure is consistent");
}

static int debug(const struct ctl *c)
{
	if (strcmp(c->arg[0], "check") != 0)
		return usage_of(find("debug"), stderr);
	return answer(c, json_pack("{ss}", "verb", "debug check"), show_debug);
}

/* replay has options of its own; --json may stand before it. */
static int replay(const struct ctl *c, char **v, int n)
{
	static char json[] = "--json";
	char **line = calloc((size_t)n + 2, sizeof(*line));
	int code, at = 0;

	if (!line)
		return CTL_NO;
	line[at++] = v[0];
	if (c->json)
		line[at++] = json;
	for (int i = 1; i < n; i++)
		line[at++] = v[i];
	code = ctl_replay(at, line);
	free(line);
	return code;
}

static int run(struct ctl *c, int n, char **v)
{
	const struct verb *verb = find(c->verb);
	struct line l = { v, n, 1 };
	unsigned given = 0;
	int code, r;

	for (size_t i = 0; i < ARRAY_SIZE(later); i++)
		if (strcmp(later[i], c->verb) == 0) {
			ctl_complain("%s: not yet supported", c->verb);
			return CTL_USAGE;
		}
	if (!verb) {
		ctl_complain("unknown verb %s", c->verb);
		return usage(stderr);
	}
	if (strcmp(c->verb, "replay") == 0)
		return replay(c, v, n);
	r = parse(&l, c, &given);
	if (r != 0)
		return usage_of(verb, r > 0 ? stdout : stderr);
	code = fits(verb, c, given);
	if (code != CTL_OK)
		return code;
	return verb->run ? verb->run(c) : request(c, verb);
}

/* What nobody could read is no success. */
static int written(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	ctl_complain("standard output: %s", strerror(errno));
	return code == CTL_OK ? CTL_NO : code;
}

int main(int argc, char **argv)
{
	struct ctl c = { .socket = CTL_SOCKET };
	struct line l = { argv, argc, 1 };

	for (; l.at < argc && argv[l.at][0] == '-'; l.at++) {
		int r;

		if (strcmp(argv[l.at], "--json") == 0) {
			c.json = true;
			continue;
		}
		if (is_help(argv[l.at]))
			return usage(stdout);
		if (strcmp(argv[l.at], "--version") == 0)
			return puts("egressctl " EGRESSD_VERSION) < 0 ? CTL_NO : CTL_OK;
		r = option(&l, "--socket", &c.socket);
		if (r == 0)
			ctl_complain("unknown option %s", argv[l.at]);
		if (r <= 0)
			return usage(stderr);
	}
	if (l.at == argc) {
		ctl_complain("VERB is missing");
		return usage(stderr);
	}
	c.verb = argv[l.at];
	return written(run(&c, argc - l.at, argv + l.at));
}
