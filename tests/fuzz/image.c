/* An instance: PNG or JPEG. */
#include "tests/fuzz/fuzz.h"

#include "engine/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;
	struct image image;
	uint8_t small[3 * 8 * 8], sum = 0;

	if (image_decode(&image, data, size, 0, &err) == 0) {
		size_t n = (size_t)image.height * image.width * image.channels;

		MUST(image.height > 0 && image.width > 0 && (image.channels == 1 || image.channels == 3));
		for (size_t i = 0; i < n; i += 1 + n / 4096)
			sum ^= image.pixels[i];
		MUST(sum == 0 || image.pixels[n - 1] <= 255);
		image_release(&image);
	} else {
		MUST(err.code != ERR_NONE);
	}
	image_load(small, 8, 8, 3, data, size, &err);
	return 0;
}
