/* control_bounds.h - what a request may ask for: the control socket names the key that breaks a bound, egressctl the option. */
#pragma once

#define CONTROL_FOR_MAX	    (366ULL * 86400)	/* seconds */
#define CONTROL_CONFIRM_MAX 86400ULL
#define CONTROL_BUDGET_MAX  (1ULL << 50)	/* bytes */
#define CONTROL_REASON_MAX  119			/* bytes of text */
#define CONTROL_NAME_MAX    128			/* host, destination */
#define CONTROL_ANSWER_S    5			/* the engine's time to answer */
