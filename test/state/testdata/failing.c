/* Preloaded into a program, it makes the disk fail: while the file named by
 * FAILING_CONTROL exists, whatever writes or syncs a file whose path contains
 * FAILING_FILES fails with the errno that is the control file's content. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int failing(int fd) {
	const char *control = getenv("FAILING_CONTROL"), *files = getenv("FAILING_FILES");
	if (!control || !files) return 0;
	int c = open(control, O_RDONLY | O_CLOEXEC);
	if (c < 0) return 0;
	char text[16] = {0};
	ssize_t got = read(c, text, sizeof text - 1);
	close(c);
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (got <= 0 || n <= 0) return 0;
	path[n] = 0;
	if (!strstr(path, files)) return 0;
	errno = atoi(text);
	return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) { return failing(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return failing(fd) ? -1 : REAL(fdatasync)(fd); }
ssize_t write(int fd, const void *b, size_t n) { return failing(fd) ? -1 : REAL(write)(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) { return failing(fd) ? -1 : REAL(pwrite)(fd, b, n, at); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) { return failing(fd) ? -1 : REAL(pwrite64)(fd, b, n, at); }
int ftruncate(int fd, off_t n) { return failing(fd) ? -1 : REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { return failing(fd) ? -1 : REAL(ftruncate64)(fd, n); }
