/* main.c - egressd: which process am I? */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "devices.h"
#include "engine.h"
#include "policy_source.h"
#include "relay.h"
#include "service_file.h"
#include "supervisor.h"
#include "supervisor_rules.h"

static int usage(int code)
{
	fprintf(code ? stderr : stdout,
		"usage: egressd [-c FILE] [-n]\n"
		"       egressd --help | --version\n"
		"  -c FILE  configuration, default /etc/egressd/egressd.yaml\n"
		"  -n       check the configuration, the policy and password files it names; print it as parsed, then exit\n");
	return code;
}

static int check_password(const struct config *c)
{
	char *text = NULL, why[CONFIG_READ_WHY];
	size_t len;
	int r = c->redis && c->redis_password_file[0] ? config_read_file(c->redis_password_file, 4096, &text, &len) : 0;

	if (r < 0)
		fprintf(stderr, "redis.password_file %s: %s\n", c->redis_password_file, config_read_why(r, 4096, why));
	if (text && service_file_is_open(c->redis_password_file))
		fprintf(stderr, "note: redis.password_file %s: all users may read it: chmod 640\n", c->redis_password_file);
	if (text)
		service_file_note(c->redis_password_file, STDERR_FILENO);
	if (text)
		explicit_bzero(text, len);
	free(text);
	return r;
}

/* A tunnel may come up later: no error. */
static void note_device(void *ctx, const char *name, const char *text)
{
	(void)ctx;
	(void)name;
	fprintf(stderr, "note: %s\n", text);
}

/* With the files that it names: a start needs them. */
static int check_config(const char *path)
{
	struct config c;
	int password, policy, r;

	if (config_load(path, &c, STDERR_FILENO) < 0)
		return EXIT_FAILURE;
	r = config_print(&c, stdout);
	if (r < 0)
		fprintf(stderr, "standard output: %s\n", strerror(-r));
	service_file_note(path, STDERR_FILENO);
	devices_of_config(&c, note_device, NULL);
	password = check_password(&c);
	policy = policy_source_check(&c, STDERR_FILENO);
	return r < 0 || password < 0 || policy < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	const char *path = "/etc/egressd/egressd.yaml";
	bool check = false;
	int o;

	if (argc == 2 && strcmp(argv[1], "engine") == 0)
		return engine_main();
	if (argc == 2 && strcmp(argv[1], "relay") == 0)
		return relay_main();
	if (argc == 2 && strcmp(argv[1], "cleanup") == 0)
		return cleanup_main();
	if (argc == 2 && strcmp(argv[1], "left") == 0)
		return left_main();
	while ((o = getopt_long(argc, argv, "c:nh", options, NULL)) != -1) {
		if (o == 'c')
			path = optarg;
		else if (o == 'n')
			check = true;
		else if (o == 'v')
			return puts("egressd " EGRESSD_VERSION) < 0;
		else
			return usage(o == 'h' ? 0 : 2);
	}
	if (optind != argc)
		return usage(2);
	return check ? check_config(path) : supervisor_main(path);
}
