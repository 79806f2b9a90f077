/* Calls a fuzzer once for each file that is named, without libFuzzer: for valgrind, which sees what
 * no sanitizer does (values that nobody set) and cannot run together with one. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");
		uint8_t *bytes;
		long size;

		if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET))
			return 2;
		bytes = malloc(size ? (size_t)size : 1);
		if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size)
			return 2;
		fclose(file);
		LLVMFuzzerTestOneInput(bytes, (size_t)size);
		free(bytes);
	}
	return 0;
}
