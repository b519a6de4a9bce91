/* A whole data set: files of u8 name, u16 length (little-endian), bytes; then the cache that comes of it. */
#include "tests/fuzz/fuzz.h"

#include "engine/dataset.h"

#include <sys/mman.h>
#include <unistd.h>

static const char *const names[] = {
	"train-images-idx3-ubyte",
	"train-labels-idx1-ubyte",
	"train-images-idx3-ubyte.gz",
	"train-labels-idx1-ubyte.gz",
	"t10k-images-idx3-ubyte",
	"t10k-labels-idx1-ubyte",
	"labels.txt",
	"train/cat/1.png",
	"val/dog/2.jpg",
	"cat/3.png",
	"notes.md",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dataset_scan *scan;
	struct buf json = BUF_INIT;
	struct dataset *ds;
	int fd = memfd_create("cache", MFD_CLOEXEC), r = 0;

	MUST(fd >= 0 && dataset_scan_new(&scan, &(struct dataset_scan_options){.name = "fuzz"}, NULL) == 0);
	while (size >= 3 && r == 0) {
		size_t len = data[1] | (size_t)data[2] << 8;
		const char *name = names[data[0] % (sizeof(names) / sizeof(names[0]))];

		data += 3;
		size -= 3;
		if (len > size)
			len = size;
		r = dataset_scan_file(scan, name, data, len, NULL);
		data += len;
		size -= len;
	}
	if (r == 0 && dataset_scan_finish(scan, fd, &json, NULL) == 0) {
		MUST(dataset_open(&ds, fd, NULL) == 0); /* what it wrote it also reads */
		for (int split = 0; split < DATASET_SPLITS; split++)
			for (size_t i = 0; i < dataset_count(ds, split); i++) {
				MUST(dataset_label(ds, split, i) < dataset_shape(ds).classes);
				MUST(dataset_image(ds, split, i)[0] <= 255);
			}
		dataset_close(ds);
	}
	buf_release(&json);
	dataset_scan_free(scan);
	close(fd);
	return 0;
}
