/* ctl_link.c - egressctl's end of the control socket. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl.h"

#define REPLY_MAX (4U << 20)
#define ANSWER_S  30		/* the engine may be putting a policy in force */

static int dial(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval t = { .tv_sec = ANSWER_S };
	int fd, r;

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)) < 0 ||
	    connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int send_line(int fd, const char *text)
{
	size_t left = strlen(text);

	for (; left > 0;) {
		ssize_t n = send(fd, text, left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			/* It may have answered before it had read all: what it says is worth more than EPIPE. */
			return errno == EPIPE || errno == ECONNRESET ? 0 : -errno;
		text += n;
		left -= (size_t)n;
	}
	if (send(fd, "\n", 1, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		return -errno;
	return 0;
}

static int read_all(int fd, char **ret, size_t *ret_len)
{
	char *buf = malloc(REPLY_MAX);
	size_t len = 0;

	if (!buf)
		return -ENOMEM;
	while (len < REPLY_MAX) {
		ssize_t n = recv(fd, buf + len, REPLY_MAX - len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && !(errno == ECONNRESET && len > 0)) {
			int r = errno == EAGAIN ? -ETIMEDOUT : -errno;

			free(buf);
			return r;
		}
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	*ret = buf;
	*ret_len = len;
	return 0;
}

static void explain(const char *path, int r)
{
	if (r == -ENOENT || r == -ECONNREFUSED)
		ctl_complain("egressd does not run: nobody listens at %s", path);
	else if (r == -EACCES)
		ctl_complain("%s: not permitted: be root or a member of group egressd", path);
	else if (r == -ETIMEDOUT)
		ctl_complain("egressd does not answer within %d s", ANSWER_S);
	else
		ctl_complain("%s: %s", path, strerror(-r));
}

json_t *ctl_ask(const struct ctl *c, json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT), *answer = NULL;
	json_t *reply = NULL;
	json_error_t e;
	size_t len = 0;
	int fd = -1, r = text ? 0 : -ENOMEM;

	json_decref(request);
	if (r == 0)
		r = fd = dial(c->socket);
	if (fd >= 0)
		r = send_line(fd, text);
	if (r == 0)
		r = read_all(fd, &answer, &len);
	if (fd >= 0)
		close(fd);
	free(text);
	if (r < 0) {
		explain(c->socket, r);
		return NULL;
	}
	reply = json_loadb(answer, len, 0, &e);
	if (!reply)
		ctl_complain(len ? "the answer of egressd is broken: %s" :
				   "egressd closed the connection without an answer", e.text);
	free(answer);
	ctl_timezone(ctl_string(reply, "timezone"));
	return reply;
}

int ctl_verdict(const json_t *reply)
{
	if (ctl_true(reply, "ok"))
		return CTL_OK;
	ctl_complain("%s", ctl_string(reply, "error")[0] ? ctl_string(reply, "error") : "refused without a reason");
	return CTL_NO;
}

void ctl_print_json(const json_t *reply)
{
	char *text = json_dumps(reply, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(12));

	if (text)
		puts(text);
	free(text);
}
