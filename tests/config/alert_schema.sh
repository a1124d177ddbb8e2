#!/bin/bash
# alert_schema.sh - the examples and what finding_json() makes are valid by config/alert.schema.json, and the schema refuses an
# object in which any one required field is missing or of another type.
set -u
cd "$(dirname "$0")/../.." || exit 2
: "${EGRESSD_BUILD:=build}"
if ! /usr/bin/python3 -c 'import jsonschema' 2>/dev/null; then
	echo "python3-jsonschema is missing (sudo tests/need test)"
	exit 77
fi
made=$(mktemp) || exit 2
trap 'rm -f "$made"' EXIT
"$EGRESSD_BUILD/tests/unit/test_finding" print >"$made" || exit 1
/usr/bin/python3 -W ignore - "$made" config/alert-examples/*.json <<'END'
import copy, json, sys
import jsonschema

schema = json.load(open("config/alert.schema.json"))
jsonschema.Draft202012Validator.check_schema(schema)
v = jsonschema.Draft202012Validator(schema)
failed = False

def told(good, text):
    global failed
    failed = failed or not good
    print(("ok - " if good else "not ok - ") + text)

objects = [(sys.argv[1] + ":%d" % (n + 1), json.loads(line)) for n, line in enumerate(open(sys.argv[1]))]
told(len(objects) == 5, "finding_json() printed five kinds")
for name, o in objects + [(f, json.load(open(f))) for f in sys.argv[2:]]:
    errors = [e.message for e in v.iter_errors(o)]
    told(not errors, "valid: " + (name if "/tmp" not in name else "made " + o["event_type"]) + "".join("; " + e for e in errors[:3]))
o = objects[0][1]
kept = [k for k in schema["required"] if v.is_valid({x: o[x] for x in o if x != k})]
told(not kept, "every required field is missed" + "".join(" but " + k for k in kept))
wrong = []
for k in o:
    bad = copy.deepcopy(o)
    bad[k] = {"no": "such"} if not isinstance(o[k], dict) else 5
    if v.is_valid(bad):
        wrong.append(k)
told(not wrong, "every field of another type is refused" + "".join(" but " + k for k in wrong))
told(not v.is_valid(dict(o, extra=1)), "an unknown field is refused")
told(not v.is_valid(dict(o, attack=[])), "an alert without an attack is refused")
for n in 3, 4:
    h = objects[n][1]
    told(h["attack"] == [] and not v.is_valid(dict(h, attack=["T1048"])), "a %s names no attack" % h["event_type"])
# Made by `test_finding print`, so that no example says what the program never does.
examples = {f: json.load(open(f)) for f in sys.argv[2:]}
for name, made in ("pair-blocked", 0), ("host-would-block", 1), ("group-closed", 2), ("health", 3), ("decision-refused", 4):
    told(examples.pop("config/alert-examples/%s.json" % name, None) == objects[made][1], "example %s is what is made" % name)
told(not examples, "no example beside them" + "".join(" but " + f for f in examples))
sys.exit(failed)
END
