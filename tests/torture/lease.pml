/* lease.pml - the arithmetic of accounts and leases (lib/account.h, lib/lender.h, daemon/leases.h) as a model for spin(1): every
 * interleaving of two workers, the main thread and the kernel's packets, with the engine killed after any step.
 *
 * One account with a limit that enforces, one pair, packets of one unit. A d_step is what the machine does in one instruction, or
 * what nobody else can see the middle of (under the account's lock, or before a flag says it is there).
 *
 * Never, in any reachable state:  more passed than the limit; the kernel passed more on a lease than was granted.
 * In the end, whatever happened:  outstanding 0; charged = passed + what was charged for a packet in hand at a kill (one a worker).
 *
 * Each of these leaves out one rule of the contracts and must be found to break it: NO_GRACE, NO_SECOND_LOOK, NO_BARRIER,
 * NO_COUNT_BARRIER, COUNT_FIRST, RELATIVE_STEP, NO_RETURN. lease_model.sh runs all of them.
 */
#ifndef LIMIT
#define LIMIT	4
#endif
#ifndef QUEUED
#define QUEUED	2	/* packets a worker finds in its queue, besides those the kernel sends on */
#endif
#ifndef LEASED
#define LEASED	3	/* packets that meet the lease's rule */
#endif
#ifndef GRANTS
#define GRANTS	2
#endif
#ifndef KILLS
#define KILLS	1
#endif
#define WORKERS 2

/* struct account, account_cold */
byte spent, cap, leased, outstanding;
bool lock;
/* struct lease, its one share, and the step under way */
byte granted, settled, share_granted, share_settled;
bool open, valid;
byte to_granted, to_settled, to_outstanding, to_leased;
/* the kernel's: element, quota object, counter; packets amid the rules */
bool element;
byte quota, used, counter, amid;
/* struct area_worker: the slot of the packet in hand */
mtype = { FREE, RECEIVED, PASS };
mtype slot[WORKERS] = FREE;
byte queue[WORKERS] = QUEUED;
/* QSBR: a batch has ended since */
bool online[WORKERS], turn[WORKERS];
/* processes */
bool dead, ready = true, parked[WORKERS], done[WORKERS], kernel_done;
byte kills = KILLS;
/* what really happened */
byte passed, doubled;
bool charged[WORKERS];

inline let_pass() {
	passed++;
	assert(passed <= LIMIT)
}

/* account_refresh(), under the lock */
inline refresh() {
	cap = (LIMIT > leased + outstanding -> LIMIT - leased - outstanding : 0)
}

/* ---- workers: account_charge(), then ledger_charge() ---- */

inline charge_below(limit) {
	was = spent;
	do
	:: was >= limit -> break
	:: was < limit ->
		d_step {
			if
			:: spent == was -> spent++; charged[me] = true
			:: else -> was = spent
			fi
		}
		if
		:: charged[me] -> break
		:: else
		fi
	od
}

inline batch_end() {
	slot[me] = FREE; online[me] = false; turn[me] = !turn[me]
}

proctype worker(byte me) {
	byte was, limit;

	do
	:: {
		do
		:: ready && queue[me] > 0 ->
			d_step { online[me] = true; queue[me]--; slot[me] = RECEIVED }
			limit = cap;
			charge_below(limit);
			if
			:: charged[me]
			:: else ->
				d_step { !lock -> lock = true; refresh(); limit = cap }
				charge_below(limit);
				lock = false
			fi;
			if
			:: charged[me] ->
				d_step { slot[me] = PASS; limit = 0; was = 0 }
				d_step { let_pass(); charged[me] = false; batch_end() }
			:: else ->
				d_step { limit = 0; was = 0; batch_end() }	/* refused */
			fi
		:: ready && queue[me] == 0 && kernel_done -> done[me] = true; goto out
		od
	} unless { dead };
		parked[me] = true;
		!dead;
		d_step { parked[me] = false; limit = 0; was = 0 }
	od;
out:
	skip
}

/* ---- the kernel: map, quota, counter; what is over goes to a queue ---- */

proctype kernel() {
	byte left = LEASED;
	bool hit;

	do
	:: left > 0 ->
		d_step { left--; hit = element; amid = amid + hit }
		if
		:: hit ->
			d_step { used++; hit = (used <= quota) }
			if
			:: hit -> d_step { counter++; let_pass(); assert(counter <= granted) }
			:: else -> queue[0]++
			fi;
			d_step { amid--; hit = false }
		:: else -> queue[1]++
		fi
	:: left == 0 -> break
	od;
	kernel_done = true
}

/* ---- the main thread ---- */

/* step_share(): absolute values behind one flag */
inline step() {
	if
	:: granted == share_granted && settled == share_settled
	:: else ->
		d_step {
			!lock -> lock = true;
			to_granted = granted; to_settled = settled;
			to_outstanding = outstanding + granted - share_granted - (settled - share_settled);
			to_leased = leased + settled - share_settled;
			valid = true
		}
		step_apply();
		d_step { valid = false; refresh(); lock = false; to_granted = 0; to_settled = 0; to_outstanding = 0; to_leased = 0 }
	fi
}

inline step_apply() {
#ifdef RELATIVE_STEP
	outstanding = outstanding + to_granted - share_granted - (to_settled - share_settled);
	leased = leased + to_settled - share_settled;
#else
	outstanding = to_outstanding;
	leased = to_leased;
#endif
	share_granted = to_granted;
	share_settled = to_settled
}

inline settle_to(count) {
	if
	:: count > settled -> settled = count
	:: else
	fi;
	step()
}

/* worker_grace() */
inline grace() {
#ifndef NO_GRACE
	i = 0;
	do
	:: i < WORKERS -> seen = turn[i]; (!online[i] || turn[i] != seen); i++
	:: else -> break
	od;
	skip;
	d_step { i = 0; seen = false }
#else
	skip
#endif
}

/* raise_all(): `used`, lease_grant(), both graces, what the kernel sent on, lease_stands(), rules_lease_put(). A packet that `used`
 * has seen and the counter has not would be taken for one sent on: hence the barrier before the count. */
inline sent_on_is() {
	settle_to(count);
	d_step { sent_on = (seen_used > settled + sent_on -> seen_used - settled : sent_on); seen_used = 0; count = 0 }
}

inline grant() {
#ifdef COUNT_FIRST
	count = counter;
#endif
	seen_used = used;
	d_step { !lock -> refresh(); head = (cap > spent -> cap - spent : 0) }
	if
	:: head == 0 ->
		seen_used = 0;
		if
		:: fresh -> open = false
		:: else
		fi
	:: else ->
		if
		:: more = head
		:: head > 1 -> more = 1
		fi;
		d_step { granted = granted + more; head = 0 }
		step();
		grace();
#ifndef COUNT_FIRST
#ifndef NO_COUNT_BARRIER
		amid == 0;
#endif
		count = counter;
#endif
		sent_on_is();
		d_step { !lock -> refresh(); stands = (spent <= cap) }
#ifdef NO_SECOND_LOOK
		stands = true;
#endif
		if
		:: stands -> d_step { quota = granted + sent_on; element = true; fresh = false; stands = false; more = 0 }
		:: else ->
			d_step { granted = granted - more; more = 0 }
			step();
			if
			:: fresh -> open = false
			:: else
			fi
		fi
	fi
}

/* leases_end(): no packet begins, those amid the rules leave, count, return the rest */
inline recall() {
	element = false;
#ifndef NO_BARRIER
	amid == 0;
#endif
	count = counter;
	settle_to(count);
	count = 0;
#ifndef NO_RETURN
	granted = settled;
	step();
#endif
	open = false
}

/* judge_recover(), lease_recover(), leases_end_all(): a kill in the midst begins it anew */
inline recover() {
	i = 0;
	do
	:: i < WORKERS ->
		if
		:: slot[i] == PASS -> d_step { let_pass(); slot[i] = FREE; charged[i] = false }
		:: slot[i] == RECEIVED -> d_step {	/* judged again */
			doubled = doubled + charged[i]; charged[i] = false; queue[i]++; slot[i] = FREE }
		:: else
		fi;
		i++
	:: else -> break
	od;
	skip;	/* a loop may not end in a d_step */
	d_step { lock = false; i = 0; online[0] = false; online[1] = false }
	if
	:: valid -> step_apply(); valid = false
	:: else
	fi;
	step();
	if
	:: open -> recall()
	:: else
	fi;
	d_step { refresh(); ready = true }
}

inline forget() {
	fresh = false; sent_on = 0; head = 0; more = 0; count = 0; seen_used = 0; seen = false; stands = false; i = 0
}

proctype main_thread() {
	byte grants = GRANTS, head, more, count, seen_used, sent_on, i;
	bool fresh, seen, stands;

	do
	:: {
		if
		:: !ready -> recover()
		:: else
		fi;
		do
		:: !open && grants > 0 ->
			d_step { /* a new generation: another object, another counter */
				grants--; granted = 0; settled = 0; share_granted = 0; share_settled = 0; quota = 0; used = 0;
				counter = 0; sent_on = 0; fresh = true }
			open = true;
			grant()
		:: open && grants > 0 -> grants--; grant()
		:: open -> recall()
		:: !open && done[0] && done[1] && kernel_done -> goto out
		od
	} unless { dead };
		parked[0] || done[0];
		parked[1] || done[1];
		d_step { forget(); ready = false; dead = false }
	od;
out:
	assert(outstanding == 0);
	assert(spent + leased == passed + doubled);
	assert(doubled <= KILLS * WORKERS)
}

proctype killer() {
end:
	do
	:: d_step { kills > 0 && !dead -> dead = true; kills-- }
	od
}

init {
	atomic {
		cap = LIMIT;
		run worker(0);
		run worker(1);
		run kernel();
		run main_thread();
		run killer()
	}
}
