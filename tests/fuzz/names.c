/* Names that users and NFS clients make: what they mean in the tree, and where their answers appear. */
#include "tests/fuzz/fuzz.h"

#include "fs/node/node.h"
#include "fs/node/tree.h"
#include "sched/internal.h"
#include "sched/result.h"

#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct endpoint ep = {.name = "app"};
	char *name, *slash, *path;
	uint8_t kind;

	if (size < 1 || size > 4096)
		return 0;
	name = strndup((const char *)data + 1, size - 1);
	for (int mode = 0; mode < 3; mode++) {
		kind = node_child_kind(data[0], name, (mode_t[]){S_IFDIR, S_IFREG, S_IFLNK}[mode]);
		MUST(kind < NODE_KINDS);
		MUST(node_type(kind));
	}
	node_type(data[0]);
	if (*name && !strchr(name, '/')) /* both sides of the daemon must agree on what is an instance */
		MUST(node_name_waits(name) == instance_name_waits(name));
	path = result_path(&ep, name, ".gradcam.png");
	MUST(path);
	slash = strrchr(path, '/');
	MUST(slash && strncmp(path, "infer/app/out/", 14) == 0);
	slash = strrchr(name, '/');
	if (strlen(slash ? slash + 1 : name) <= 255)
		MUST(strlen(strrchr(path, '/') + 1) <= 255);
	free(path);
	free(name);
	return 0;
}
