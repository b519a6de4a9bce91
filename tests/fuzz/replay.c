/* Runs one target over the files of its corpus, and over each of them cut short. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <string.h>

#define LONGEST (1 << 20)
#define CUTS    64

int main(int argc, char **argv)
{
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	struct dirent *de;
	int n = 0;

	if (!dir) {
		fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
		return 2;
	}
	while ((de = readdir(dir))) {
		uint8_t *data = malloc(LONGEST), *copy;
		char path[4096];
		size_t len;
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s", argv[1], de->d_name);
		f = de->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!f || !data) {
			free(data);
			continue;
		}
		len = fread(data, 1, LONGEST, f);
		fclose(f);
		for (size_t cut = 0; cut <= CUTS; cut++) {
			size_t part = len * (CUTS - cut) / CUTS;

			copy = malloc(part + !part); /* so that a sanitizer sees what is read beyond it */
			memcpy(copy, data, part);
			LLVMFuzzerTestOneInput(copy, part);
			free(copy);
		}
		free(data);
		n++;
	}
	closedir(dir);
	printf("%d inputs\n", n);
	return n ? 0 : 1;
}
