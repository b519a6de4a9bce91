#include "engine/base/json.h"

void json_print(struct buf *ret, const cJSON *json)
{
	char *text = cJSON_Print(json);

	if (!text) {
		ret->failed = true;
		return;
	}
	buf_adds(ret, text);
	buf_adds(ret, "\n");
	cJSON_free(text);
}
