/* lease.pml - the arithmetic of accounts and leases (lib/account.h, lib/lender.h, daemon/leases.h) as a model for spin(1): every
 * interleaving of two workers, the main thread and the kernel's packets, with the engine killed after any step.
 *
 * One pair that ACCOUNTS accounts pay for, each with a limit that enforces (the second's is LIMIT2), packets of one unit. A d_step is
 * what the machine does in one instruction, or what nobody else can see the middle of (under the account's lock, or before a flag
 * says it is there).
 *
 * Never, in any reachable state:  more passed than any limit; the kernel passed more on a lease than was granted.
 * In the end, whatever happened:  for each account, outstanding 0; charged = passed + what was charged for a packet in hand at a kill
 *                                 (one a worker and kill, or what a refusal had not given back yet).
 *
 * Each of these leaves out one rule of the contracts and must be found to break it: NO_GRACE, NO_SECOND_LOOK, NO_BARRIER,
 * NO_COUNT_BARRIER, COUNT_FIRST, RELATIVE_STEP, NO_RETURN, NO_UNDO, ONE_SHARE, SLEEP_NO_WAIT, SLEEP_WAKED, SLEEP_ANY. lease_model.sh runs all
 * of them.
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
#ifndef ACCOUNTS
#define ACCOUNTS 1
#endif
#ifndef END_ALL
#define END_ALL	0	/* while running, too, as when the policy changes */
#endif
#ifndef SLEEPS
#define SLEEPS	0	/* times that the lease is idle */
#endif
#ifndef LIMIT2
#define LIMIT2	LIMIT
#endif
#define WORKERS 2
#define LIMIT_OF(a) (a == 0 -> LIMIT : LIMIT2)

/* struct account, account_cold */
byte spent[ACCOUNTS], cap[ACCOUNTS], leased[ACCOUNTS], outstanding[ACCOUNTS];
bool lock[ACCOUNTS];
/* struct lease, its shares, and the step under way */
byte granted, settled, share_granted[ACCOUNTS], share_settled[ACCOUNTS];
bool open, valid;
byte to_share, to_granted, to_settled, to_outstanding, to_leased;
/* the kernel's: element, quota object, counter, whether the chain asks leases; packets amid the rules */
bool element, asks = true;
byte quota, used, counter, amid;
/* its grace period that the main thread is told of: packets that are amid yet since it was asked for */
byte waits;
/* struct area_worker: the slot of the packet in hand */
mtype = { FREE, RECEIVED, PASS };
mtype slot[WORKERS] = FREE;
byte queue[WORKERS] = QUEUED;
/* QSBR: a batch has ended since */
bool online[WORKERS], turn[WORKERS];
/* processes */
bool dead, ready = true, parked[WORKERS], done[WORKERS], kernel_done;
byte kills = KILLS;
/* what really happened; paid: accounts that have charged the packet in hand */
byte passed, doubled[ACCOUNTS];
byte paid[WORKERS];

inline let_pass() {
	passed++;
	assert(passed <= LIMIT && (ACCOUNTS == 1 || passed <= LIMIT2))
}

/* account_refresh(), under the lock */
inline refresh(a) {
	cap[a] = (LIMIT_OF(a) > leased[a] + outstanding[a] -> LIMIT_OF(a) - leased[a] - outstanding[a] : 0)
}

/* ---- workers: account_charge(), then ledger_charge() ---- */

inline charge_below(a) {
	was = spent[a];
	do
	:: was >= limit -> break
	:: was < limit ->
		d_step {
			if
			:: spent[a] == was -> spent[a] = spent[a] + 1; paid[me] = paid[me] + 1
			:: else -> was = spent[a]
			fi
		}
		if
		:: paid[me] > a -> break
		:: else
		fi
	od
}

inline charge(a) {
	limit = cap[a];
	charge_below(a);
	if
	:: paid[me] > a
	:: else ->
		d_step { !lock[a] -> lock[a] = true; refresh(a); limit = cap[a] }
		charge_below(a);
		lock[a] = false
	fi
}

/* [J1] one refused: the earlier ones have it back */
inline undo() {
#ifdef NO_UNDO
	paid[me] = 0
#else
	if
	:: paid[me] > 0 -> d_step { paid[me] = 0; spent[0] = spent[0] - 1 }
	:: else
	fi
#endif
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
			charge(0);
#if ACCOUNTS == 2
			d_step { limit = 0; was = 0 }
			if
			:: paid[me] > 0 -> charge(1)	/* in ascending order */
			:: else
			fi;
#endif
			if
			:: paid[me] == ACCOUNTS ->
				d_step { slot[me] = PASS; limit = 0; was = 0 }
				d_step { let_pass(); paid[me] = 0; batch_end() }
			:: else ->
				undo();
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
		d_step { left--; hit = (element && asks); amid = amid + hit }
		if
		:: hit ->
			d_step { used++; hit = (used <= quota) }
			if
			:: hit -> d_step { counter++; let_pass(); assert(counter <= granted) }
			:: else -> queue[0]++
			fi;
			d_step { amid--; waits = 0; hit = false }
		:: else -> queue[1]++
		fi
	:: left == 0 -> break
	od;
	kernel_done = true
}

/* ---- the main thread ---- */

/* step_share(): absolute values behind one flag */
inline step_share(k) {
	if
	:: granted == share_granted[k] && settled == share_settled[k]
	:: else ->
		d_step {
			!lock[k] -> lock[k] = true;
			to_share = k; to_granted = granted; to_settled = settled;
			to_outstanding = outstanding[k] + granted - share_granted[k] - (settled - share_settled[k]);
			to_leased = leased[k] + settled - share_settled[k];
			valid = true
		}
		step_apply();
		d_step {
			valid = false; refresh(k); lock[k] = false;
			to_share = 0; to_granted = 0; to_settled = 0; to_outstanding = 0; to_leased = 0
		}
	fi
}

/* One share after the other. */
inline step() {
	step_share(0)
#if ACCOUNTS == 2 && !defined(ONE_SHARE)
	; step_share(1)
#endif
}

inline step_apply() {
#ifdef RELATIVE_STEP
	outstanding[to_share] = outstanding[to_share] + to_granted - share_granted[to_share] - (to_settled - share_settled[to_share]);
	leased[to_share] = leased[to_share] + to_settled - share_settled[to_share];
#else
	outstanding[to_share] = to_outstanding;
	leased[to_share] = to_leased;
#endif
	share_granted[to_share] = to_granted;
	share_settled[to_share] = to_settled
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

/* The tightest account's headroom: each is looked at by itself. */
inline head_of(head) {
	d_step { !lock[0] -> refresh(0); head = (cap[0] > spent[0] -> cap[0] - spent[0] : 0) }
#if ACCOUNTS == 2
	d_step {
		!lock[1] -> refresh(1);
		if
		:: spent[1] >= cap[1] -> head = 0
		:: spent[1] < cap[1] && cap[1] - spent[1] < head -> head = cap[1] - spent[1]
		:: else
		fi
	}
#endif
}

inline stands_now() {
	d_step { !lock[0] -> refresh(0); stands = (spent[0] <= cap[0]) }
#if ACCOUNTS == 2
	d_step { !lock[1] -> refresh(1); stands = stands && (spent[1] <= cap[1]) }
#endif
}

/* is_to_count(): a raise may go without, sent_on is what it was */
inline to_count() {
	if
	:: !fresh && !asleep -> counts = true
	:: counts = false
	fi
}

inline grant() {
	to_count();
#ifdef COUNT_FIRST
	count = counter;
#endif
	seen_used = (counts -> used : 0);
	head_of(head);
	if
	:: head == 0 ->
		d_step { seen_used = 0; counts = false }
		if
		:: fresh -> open = false
		:: else -> wake()
		fi
	:: else ->
		if
		:: more = head
		:: head > 1 -> more = 1
		fi;
		d_step { granted = granted + more; head = 0 }
		step();
		grace();
		if
		:: counts ->
#ifndef COUNT_FIRST
#ifndef NO_COUNT_BARRIER
			amid == 0;
#endif
			count = counter;
#endif
			sent_on_is()
		:: else
		fi;
		counts = false;
		stands_now();
#ifdef NO_SECOND_LOOK
		stands = true;
#endif
		if
		:: stands -> d_step { quota = granted + sent_on; element = true; asleep = false; fresh = false; stands = false; more = 0 }
		:: else ->
			d_step { granted = granted - more; more = 0 }
			step();
			if
			:: fresh -> open = false
			:: else -> wake()
			fi
		fi
	fi
}

/* leases_sleep(), leases_grace_over(): without waiting for it; who is waked meanwhile goes on. */
inline sleep() {
	d_step {
		element = false; asleep = true; sleeps--;
		waits = (pending -> waits : amid);
		pending = true
	}
}

inline wake() {
	d_step {
		if
		:: asleep -> element = true; asleep = false
		:: else
		fi
	}
}

inline grace_over() {
	pending = false;
	if
#ifdef SLEEP_WAKED
	:: open ->
#else
	:: open && asleep ->
#endif
		count = counter;
		settle_to(count);
		count = 0;
		granted = settled;
		step();
		d_step { open = false; element = false; asleep = false }
	:: else
	fi
}

/* leases_end(): no packet begins, those amid the rules leave, count, return the rest. leases_end_all(): the chain asks no lease, and
 * asks again when none is left; a new engine does that whatever it finds. */
inline recall() {
	if
	:: ready -> element = false
	:: !ready || END_ALL -> asks = false
	fi;
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
	open = false;
	d_step { element = false; asleep = false };
	asks = true
}

/* judge_recover(), lease_recover(), leases_end_all(): a kill in the midst begins it anew */
inline recover() {
	i = 0;
	do
	:: i < WORKERS ->
		if
		:: slot[i] == PASS -> d_step { let_pass(); slot[i] = FREE; paid[i] = 0 }
		:: slot[i] == RECEIVED -> d_step {	/* judged again */
			doubled[0] = doubled[0] + (paid[i] > 0);
#if ACCOUNTS == 2
			doubled[1] = doubled[1] + (paid[i] > 1);
#endif
			paid[i] = 0; queue[i]++; slot[i] = FREE }
		:: else
		fi;
		i++
	:: else -> break
	od;
	skip;	/* a loop may not end in a d_step */
	d_step {
		lock[0] = false;
#if ACCOUNTS == 2
		lock[1] = false;
#endif
		i = 0; online[0] = false; online[1] = false
	}
	if
	:: valid -> step_apply(); valid = false
	:: else
	fi;
	step();
	if
	:: open -> recall()
	:: else
	fi;
	element = false;
	asks = true;
	d_step {
		refresh(0);
#if ACCOUNTS == 2
		refresh(1);
#endif
		ready = true
	}
}

inline forget() {
	fresh = false; asleep = false; pending = false; waits = 0; counts = false; sent_on = 0; head = 0; more = 0; count = 0; seen_used = 0; seen = false; stands = false; i = 0
}

proctype main_thread() {
	byte grants = GRANTS, sleeps = SLEEPS, head, more, count, seen_used, sent_on, i;
	bool fresh, asleep, pending, counts, seen, stands;

	do
	:: {
		if
		:: !ready -> recover()
		:: else
		fi;
		do
		:: !open && grants > 0 ->
			d_step { /* a new generation: another object, another counter */
				grants--; granted = 0; settled = 0; share_granted[0] = 0; share_settled[0] = 0;
#if ACCOUNTS == 2
				share_granted[1] = 0; share_settled[1] = 0;
#endif
				quota = 0; used = 0; counter = 0; sent_on = 0; fresh = true }
			open = true;
			grant()
		:: open && grants > 0 -> grants--; grant()
		:: open -> recall()
#ifdef SLEEP_ANY
		:: open && !asleep && sleeps > 0 -> sleep()
#else
		:: open && !asleep && sleeps > 0 && !pending -> sleep()
#endif
		:: open && asleep -> wake()
#ifdef SLEEP_NO_WAIT
		:: pending -> grace_over()
#else
		:: pending && waits == 0 -> grace_over()
#endif
		:: !open && done[0] && done[1] && kernel_done -> goto out
		od
	} unless { dead };
		parked[0] || done[0];
		parked[1] || done[1];
		d_step { forget(); ready = false; dead = false }
	od;
out:
	i = 0;
	do
	:: i < ACCOUNTS ->
		assert(outstanding[i] == 0);
		assert(spent[i] + leased[i] == passed + doubled[i]);
		assert(doubled[i] <= KILLS * WORKERS);
		i++
	:: else -> break
	od
}

proctype killer() {
end:
	do
	:: d_step { kills > 0 && !dead -> dead = true; kills-- }
	od
}

init {
	atomic {
		cap[0] = LIMIT;
#if ACCOUNTS == 2
		cap[1] = LIMIT2;
#endif
		run worker(0);
		run worker(1);
		run kernel();
		run main_thread();
		run killer()
	}
}
