#include "sched/svg.h"

#include "engine/base/utf8.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

const char *const svg_colours[SVG_COLOURS] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
					      "#e69f00", "#56b4e9", "#999933", "#000000"};

void svg_begin(struct buf *b, int width, int height, const char *title)
{
	buf_addf(b,
		 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		 "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
		 "font-family=\"sans-serif\" font-size=\"11\">\n<title>",
		 width, height, width, height);
	svg_text(b, title, SIZE_MAX);
	buf_adds(b, "</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n");
}

/* XML 1.0 section 2.2: a Char of more than white space (which would not survive). */
static size_t xml_length(const char *s)
{
	size_t n = utf8_length(s);

	if ((unsigned char)*s < ' ' || strncmp(s, "\xef\xbf\xbe", 3) == 0 ||
	    strncmp(s, "\xef\xbf\xbf", 3) == 0)
		return 0;
	return n;
}

static const char *entity(char c)
{
	switch (c) {
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '&':
		return "&amp;";
	case '"':
		return "&quot;";
	default:
		return NULL;
	}
}

void svg_text(struct buf *b, const char *text, size_t most)
{
	size_t n;

	for (size_t count = 0; *text; text += n ? n : 1, count++) {
		if (count == most) {
			buf_adds(b, "…");
			return;
		}
		n = xml_length(text);
		if (!n)
			buf_adds(b, UTF8_REPLACEMENT);
		else if (entity(*text))
			buf_adds(b, entity(*text));
		else
			buf_add(b, text, n);
	}
}

void svg_time(struct buf *b, double ns)
{
	static const struct {
		double below, unit;
		const char *name;
	} units[] = {{1e3, 1, "ns"},          {1e6, 1e3, "µs"},      {1e9, 1e6, "ms"},
		     {120e9, 1e9, "s"},       {7200e9, 60e9, "min"}, {172800e9, 3600e9, "h"},
		     {INFINITY, 86400e9, "d"}};
	size_t i = 0;

	while (ns >= units[i].below)
		i++;
	buf_addf(b, "%.3g %s", ns / units[i].unit, units[i].name);
}
