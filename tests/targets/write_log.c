/* write_log.c - preloaded: notes in order what a program writes into files, and when it syncs them.
 *
 * The log, at $WRITE_LOG, is what a crash test replays in part: of writes after the last sync a disk
 * may have kept any, torn, in any order.  Records: a kind, the inode, offset and
 * length, then the bytes. */

#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct record {
	uint64_t kind; /* 'w'rite, 't'runcate, 's'ync, 'u'nlink is not told: replay keeps files */
	uint64_t inode;
	uint64_t offset;
	uint64_t size_bytes;
};

static int log_fd = -1;

static void __attribute__((constructor)) begin(void)
{
	const char *path = getenv("WRITE_LOG");

	if (path)
		log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void note(uint64_t kind, int fd, uint64_t offset, const void *bytes, uint64_t size_bytes)
{
	struct stat status;
	struct record record = {.kind = kind, .offset = offset, .size_bytes = size_bytes};

	if (log_fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode))
		return;
	record.inode = status.st_ino;
	syscall(SYS_write, log_fd, &record, sizeof(record));
	if (bytes)
		syscall(SYS_write, log_fd, bytes, size_bytes);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size_bytes, off64_t offset)
{
	ssize_t done = syscall(SYS_pwrite64, fd, bytes, size_bytes, offset);

	if (done > 0)
		note('w', fd, (uint64_t)offset, bytes, (uint64_t)done);
	return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t size_bytes, off_t offset)
{
	return pwrite64(fd, bytes, size_bytes, offset);
}

int ftruncate64(int fd, off64_t size_bytes)
{
	int error = (int)syscall(SYS_ftruncate, fd, size_bytes);

	if (!error)
		note('t', fd, (uint64_t)size_bytes, NULL, 0);
	return error;
}

int ftruncate(int fd, off_t size_bytes)
{
	return ftruncate64(fd, size_bytes);
}

int fdatasync(int fd)
{
	int error = (int)syscall(SYS_fdatasync, fd);

	if (!error)
		note('s', fd, 0, NULL, 0);
	return error;
}

int fsync(int fd)
{
	int error = (int)syscall(SYS_fsync, fd);

	if (!error)
		note('s', fd, 0, NULL, 0);
	return error;
}
