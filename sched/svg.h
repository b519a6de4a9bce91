/* Private to sched: what curves.svg and timeline.svg share. Plain SVG 1.1, no script; "</svg>\n" ends it. */
#ifndef SCHED_SVG_H
#define SCHED_SVG_H

#include "engine/base/buf.h"

#define SVG_COLOURS 8
/* Okabe and Ito's palette: told apart by colour-blind readers too. */
extern const char *const svg_colours[SVG_COLOURS];

void svg_begin(struct buf *b, int width, int height, const char *title);
/* Text as XML has it; of any bytes. What is no character there becomes U+FFFD, and what is more than `most` characters
 * is cut and ends in an ellipsis. */
void svg_text(struct buf *b, const char *text, size_t most);
/* "22.7 ms" */
void svg_time(struct buf *b, double ns);

#endif
