/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the trace: a line of any kind as text. */
#ifndef TRACE_LINE_H
#define TRACE_LINE_H

#include "core/trace.h"

/* Into BUF of PCMIG_TRACE_LINE_MAX bytes. Returns the length as the function of its kind does, 0 for a blank line. */
int trace_line_write(const struct pcmig_trace_line *line, char *buf);

#endif
