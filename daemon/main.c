/* main.c - egressd: which process am I? */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "engine.h"
#include "relay.h"
#include "supervisor.h"

static int usage(int code)
{
	fprintf(code ? stderr : stdout,
		"usage: egressd [-c FILE] [-n]\n"
		"       egressd --help | --version\n"
		"  -c FILE  configuration, default /etc/egressd/egressd.yaml\n"
		"  -n       check and print the parsed configuration, then exit\n");
	return code;
}

static int check_config(const char *path)
{
	struct config c;

	if (config_load(path, &c, STDERR_FILENO) < 0)
		return EXIT_FAILURE;
	config_print(&c, STDOUT_FILENO);
	return EXIT_SUCCESS;
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
