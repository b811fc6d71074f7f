/* SPDX-License-Identifier: Apache-2.0 */
/* See trace_line.h. */
#include "trace_line.h"

int trace_line_write(const struct pcmig_trace_line *line, char *buf)
{
    switch (line->kind) {
    case PCMIG_TRACE_HEADER:
        return pcmig_trace_write_header(buf, PCMIG_TRACE_LINE_MAX);
    case PCMIG_TRACE_WRITER:
        return pcmig_trace_write_writer(buf, PCMIG_TRACE_LINE_MAX, line->writer);
    case PCMIG_TRACE_PARAMS:
        return pcmig_trace_write_params(buf, PCMIG_TRACE_LINE_MAX, line->policy, line->gated, &line->params);
    case PCMIG_TRACE_INPUT:
        return pcmig_trace_write_input(buf, PCMIG_TRACE_LINE_MAX, &line->input);
    case PCMIG_TRACE_DECISION:
        return pcmig_trace_write_decision(buf, PCMIG_TRACE_LINE_MAX, &line->decision);
    case PCMIG_TRACE_BLANK:
    case PCMIG_TRACE_OTHER_INPUT:
    case PCMIG_TRACE_OTHER_DECISION:
        break;
    }
    return 0;
}
