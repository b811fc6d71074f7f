/* How fast background pages may go once the guest runs at the destination. See pacing.c for the control law. */
#ifndef PCMIG_CORE_PACING_H
#define PCMIG_CORE_PACING_H

#include "input.h"
#include "params.h"

#include <stdint.h>

#endif
