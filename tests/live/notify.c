/* notify.c - what a Type=notify program says, into a file: notify SOCKET FILE. Descriptors that come along are not taken: a
 * test that keeps them by accident keeps queues alive that nobody reads. (fd_store.c keeps them on purpose.)
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_DGRAM, 0), out;
	char text[4096];
	ssize_t n;

	if (argc != 3 || strlen(argv[1]) >= sizeof(a.sun_path))
		return 2;
	memcpy(a.sun_path, argv[1], strlen(argv[1]));
	out = open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (out < 0 || bind(sock, (struct sockaddr *)&a, sizeof(a)) < 0) {
		perror(argv[1]);
		return 1;
	}
	while ((n = recv(sock, text, sizeof(text) - 1, 0)) >= 0) {
		text[n++] = '\n';
		if (write(out, text, (size_t)n) != n)
			return 1;
	}
	return 1;
}
