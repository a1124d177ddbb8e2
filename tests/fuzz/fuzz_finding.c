/* fuzz_finding.c - any bytes in a finding: the JSON parses, is valid UTF-8 without control characters, and is within its bound. */
#include <stdint.h>
#include <string.h>

#include <jansson.h>

#include "check.h"
#include "finding.h"
#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every text must end within its field, as the callers guarantee; all else is taken as it comes. */
static void end_texts(struct finding *f)
{
#define END(field) (field)[sizeof(field) - 1] = '\0'
	END(f->gateway);
	END(f->subject_kind);
	END(f->subject_name);
	END(f->subject_ip);
	END(f->rule);
	END(f->per);
	END(f->exit);
	END(f->zone);
	END(f->signature);
	END(f->category);
	END(f->action);
	END(f->how_to_allow);
	END(f->src_ip);
	END(f->dest_ip);
	END(f->community_id);
	END(f->decision_id);
	END(f->decision_result);
	END(f->decision_why);
	END(f->decision_entry);
	END(f->decision_action);
	END(f->decision_src);
	END(f->decision_dst);
	END(f->decision_budget);
	END(f->decision_ttl);
	END(f->decision_author);
	END(f->decision_reason);
	for (unsigned i = 0; i < FINDING_TOP; i++) {
		END(f->top[i].src_ip);
		END(f->top[i].dest_ip);
		END(f->top[i].name);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct finding f;
	static char json[FINDING_JSON_MAX], line[1024];
	json_error_t error;
	json_t *o;
	int n;

	memset(&f, 0, sizeof(f));
	if (size)
		for (size_t i = 0; i < sizeof(f); i += size)	/* small inputs reach every field */
			memcpy((uint8_t *)&f + i, data, size < sizeof(f) - i ? size : sizeof(f) - i);
	end_texts(&f);
	n = finding_json(&f, json, sizeof(json));
	if (n >= 0) {
		BUG_ON((size_t)n != strlen(json));
		for (int i = 0; i < n;) {
			unsigned k = utf8_printable(json + i, (size_t)(n - i));

			BUG_ON(k == 0);
			i += (int)k;
		}
		o = json_loads(json, JSON_REJECT_DUPLICATES, &error);
		BUG_ON(!o);
		json_decref(o);
	}
	(void)!finding_line(&f, line, sizeof(line));
	return 0;
}
