/* Records of the volume, as a damaged disk would give them. What is decoded is encoded to the same bytes. */
#include "tests/fuzz/fuzz.h"

#include "fs/volume/record.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char key[KEY_MAX], name[256], again[INODE_MAX + 256];
	struct inode_rec inode;
	struct dentry d;
	size_t key_len;

	if (record_get_inode(&inode, data, size) == 0) {
		MUST(inode.storage < STORAGE_COUNT);
		MUST(record_put_inode(again, &inode) == size && memcmp(again, data, size) == 0);
	}
	if (record_get_name(&d, data, size) == 0)
		MUST(record_put_name(again, &d) == size && memcmp(again, data, size) == 0);
	key_len = key_cookie(key, 1, 77);
	if (record_get_cookie(&d, name, key, key_len, data, size) == 0) {
		MUST(d.cookie == 77 && *name && strlen(name) <= 255);
		MUST(record_put_cookie(again, &d, name, strlen(name)) == size &&
		     memcmp(again, data, size) == 0);
	}
	if (size > key_len)
		record_get_cookie(&d, name, data, key_len, data + key_len, size - key_len);
	return 0;
}
