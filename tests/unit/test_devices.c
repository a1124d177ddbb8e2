/* test_devices.c - devices.h: what is told of devices that are not there, on a machine that has eth0 and wg-maint. */
#include <errno.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "devices.h"
#include "policy_source.h"

static struct if_nameindex have[] = { { 1, (char[]){ "eth0" } }, { 2, (char[]){ "wg-maint" } }, { 0, NULL } };
static int trouble;	/* the kernel cannot be asked: errno */

unsigned if_nametoindex(const char *name)
{
	for (size_t i = 0; !trouble && have[i].if_index; i++)
		if (strcmp(have[i].if_name, name) == 0)
			return have[i].if_index;
	errno = trouble ? trouble : ENODEV;
	return 0;
}

struct if_nameindex *if_nameindex(void)
{
	return trouble ? NULL : have;
}

void if_freenameindex(struct if_nameindex *all)
{
	assert_ptr_equal(all, have);
}

static char told[1000];

static void tell(void *ctx, const char *name, const char *text)
{
	const size_t len = strlen(told);

	assert_ptr_equal(ctx, told);
	snprintf(told + len, sizeof(told) - len, "%s|%s\n", name, text);
}

static struct config config_of(const char *interfaces)
{
	static struct diag_list d;
	char text[400];
	struct config c;

	snprintf(text, sizeof(text), "gateway: gw1\npolicy: /etc/egressd/policy.yaml\ninterfaces: %s\n", interfaces);
	diag_init(&d, "egressd.yaml", text, strlen(text));
	assert_int_equal(config_parse(text, strlen(text), &d, &c), 0);
	return c;
}

static const char *of_config(const char *interfaces)
{
	const struct config c = config_of(interfaces);

	told[0] = '\0';
	devices_of_config(&c, tell, told);
	return told;
}

static const char *of_policy(const char *interfaces, const char *exits)
{
	const struct config c = config_of(interfaces);
	char text[400], why[200] = "";
	struct compiled p;
	const char *bad = "";
	struct policy view;

	snprintf(text, sizeof(text), "version: 1\ninside: [10.0.0.0/8]\nexits: %s\n", exits);
	assert_int_equal(policy_source_compile(&c, text, strlen(text), &p, why, sizeof(why)), 0);
	assert_int_equal(policy_open(p.blob, p.size, &view, &bad), 0);
	told[0] = '\0';
	devices_of_policy(&c, &view, tell, told);
	compiled_free(&p);
	return told;
}

static void config(void **state)
{
	(void)state;
	assert_string_equal(of_config("{outside: [eth0], maint: [wg-maint]}"), "");
	assert_string_equal(of_config("{outside: [eht0]}"), "eht0|outside: no device eht0 now; did you mean 'eth0'?\n");
	assert_string_equal(of_config("{outside: [eth0, enp1s0], maint: [tun7], other: [tun7, tun7]}"),	/* [DV2] */
			    "enp1s0|outside: no device enp1s0 now\ntun7|maint: no device tun7 now\n");
}

static void policy(void **state)
{
	const char *interfaces = "{outside: [eth0], maint: [tun7]}";

	(void)state;
	assert_string_equal(of_policy(interfaces, "{vpn: {interfaces: [maint, wg-maint]}}"), "");	/* tun7 is the configuration's */
	assert_string_equal(of_policy(interfaces, "{vpn: {interfaces: [tun7]}}"), "");
	assert_string_equal(of_policy(interfaces, "{vpn: {hosts: [10.250.0.1]}}"), "");
	assert_string_equal(of_policy(interfaces, "{vpn: {interfaces: [mainr]}}"),
			    "mainr|exit vpn: mainr is neither a role of egressd.yaml nor a device now; did you mean 'maint'?\n");
	assert_string_equal(of_policy(interfaces, "{vpn: {interfaces: [wg-mant]}}"),
			    "wg-mant|exit vpn: wg-mant is neither a role of egressd.yaml nor a device now; did you mean 'wg-maint'?\n");
	assert_string_equal(of_policy(interfaces, "{vpn: {interfaces: [outsid0]}}"),
			    "outsid0|exit vpn: outsid0 is neither a role of egressd.yaml nor a device now\n");
}

/* [DV1] */
static void unknown(void **state)
{
	(void)state;
	trouble = EMFILE;
	assert_string_equal(of_config("{outside: [eht0]}"), "");
	assert_string_equal(of_policy("{outside: [eth0]}", "{vpn: {interfaces: [mainr]}}"), "");
	trouble = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(config), cmocka_unit_test(policy), cmocka_unit_test(unknown) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
