/* Whether a text is well-formed XML 1.0, of the few things that our pictures are made of: elements, attributes, text. */
#ifndef TESTS_SUPPORT_XML_H
#define TESTS_SUPPORT_XML_H

/* NULL: it is. Else where it is not: a declaration may come first; then one element and white space. No comments, CDATA,
 * document types and other instructions, no entities but the five. */
const char *xml_wrong(const char *text);

#endif
