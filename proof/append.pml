/* The append protocol: two deciders, a client, a timer and a step on one run; every interleaving (proof/README.md).

   The workflow waits for a payload or a time-out. A payload cancels the timer, and the code waits for a second
   one; then, or after the time-out, it runs a step, and ends with what it has read and what the step gave:

       HOOK TIMER  ( STEPL ENDL+v  |  TCANCEL STEPP ENDP+v )

   Deciders load, catch up, deliver their own timer and step outcomes early, send, and may crash (CRASHES in all).
   A call may be given up by its sender (LOSSES in all): it is sent again under its batch id, and the first copy
   arrives all the same, some time later. The client sends two payloads, each until it is answered.

   What is asserted:
     L1 L2   a log only grows, by whole appends; here an append is one atomic step
     L3      an outcome, a timer, a payload stands once; what is there already is not refused
     L4      no command stands twice; facts do not trip the fence
     L5-L7   after each append, replay of the whole log asks for the commands that it holds, where it holds them;
             after each answer, a decider's live execution is what replay of what it has read gives
     L9 L10  the end says how many payloads were read, in the order of the log
     L11     behind the end stand late outcomes of the step, nothing else
     L12     what was acknowledged stands in the log; a batch stands once
     L14     when nothing more can happen, the run has ended (and, -DLIVE with fairness, it does end)

   -DNO_FENCE    commands are taken from old views, and taken twice
   -DTAIL_FENCE  a command append is refused for facts in between, too
   -DNO_TAIL     early facts are taken though something lies between
   -DOWN_MARK    the delivered mark is set to the append's own position
   -DPARTIAL_IS_WHOLE  a decider takes a partial answer for an accepted one
   Not modelled: time, several runs, cancel, records (they change no verdict), what the store writes beside the log. */

#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LOSSES
#define LOSSES 1
#endif

/* commands */
#define HOOK 1
#define TIMER 2
#define TCANCEL 3
#define STEPL 4
#define STEPP 5
#define ENDL 6 /* + 0 or 1: whose outcome of the step counted */
#define ENDP 8
#define is_command(e) ((e) < 10)
#define is_end(e) ((e) >= ENDL && (e) < 10)
/* facts, and the creation */
#define CREATED 10
#define FIRED 11
#define DONE 12 /* + 0 or 1: the outcome of decider 0's or 1's attempt */
#define PAY 14  /* + 0 or 1: the client's first or second payload */

/* where the code is; it is a function of the facts delivered (L6) */
#define NEW 0
#define RACE 1   /* waits for a payload or the timer */
#define PAID 2   /* waits for a second payload */
#define LATE 3   /* waits for the step after the time-out */
#define TWICE 4  /* waits for the step after two payloads */
#define OVERL 5  /* + 0 or 1 */
#define OVERP 7

#define MOST 14
byte log[MOST];
byte tail, command, fact, mark;
bool ended;
byte crashes = CRASHES, losses = LOSSES;
hidden byte i, k, code, asks; /* scratch, inside of steps */
hidden byte found, beyond, stale;

typedef Request {
    byte early;     /* a fact that was delivered before its commit, or 0 */
    byte first, n;  /* which of the code's commands: from its `first`th, `n` of them */
    byte at;        /* where the code is that asks for them */
    byte after;     /* the fence; 255 for none: a fact from outside */
    byte batch;
}
#define CLIENT 2
#define NET 3
Request on[6];  /* on their way: of decider 0, decider 1 and the client; and of each a copy that was given up */
byte at_batch[7], to_batch[7]; /* of batches that were taken whole: their first and last position */

/* A sender needs two batch ids: while a copy with the one is on its way, its next request has the other. */
inline name(_w) {
    on[_w].batch = (on[NET + _w].batch == 2 * _w + 1 -> 2 * _w + 2 : 2 * _w + 1);
    at_batch[on[_w].batch] = 0; to_batch[on[_w].batch] = 0
}
inline forget(_r, _twin) {
    if
    :: on[_r].batch != on[_twin].batch -> at_batch[on[_r].batch] = 0; to_batch[on[_r].batch] = 0
    :: else
    fi;
    on[_r].early = 0; on[_r].first = 0; on[_r].n = 0; on[_r].at = 0; on[_r].after = 0; on[_r].batch = 0
}
inline give_up(_w) {
    losses--;
    on[NET + _w].early = on[_w].early; on[NET + _w].first = on[_w].first; on[NET + _w].n = on[_w].n;
    on[NET + _w].at = on[_w].at; on[NET + _w].after = on[_w].after; on[NET + _w].batch = on[_w].batch
}

inline deliver(_pc, _ev) {
    if
    :: _pc == NEW && _ev == CREATED -> _pc = RACE
    :: _pc == RACE && _ev >= PAY -> _pc = PAID
    :: _pc == RACE && _ev == FIRED -> _pc = LATE
    :: _pc == PAID && _ev >= PAY -> _pc = TWICE
    :: _pc == LATE && (_ev == DONE || _ev == DONE + 1) -> _pc = OVERL + _ev - DONE
    :: _pc == TWICE && (_ev == DONE || _ev == DONE + 1) -> _pc = OVERP + _ev - DONE
    :: else
    fi
}

/* how many commands the code has asked for */
#define asked(where) (where == NEW -> 0 : (where == RACE -> 2 : (where == PAID || where == LATE -> 3 : \
    (where == TWICE || where == OVERL || where == OVERL + 1 -> 4 : 5))))
/* the kth of them, from 0 */
#define nth(where, k) (k == 0 -> HOOK : (k == 1 -> TIMER : ( \
    where == LATE || where == OVERL || where == OVERL + 1 -> (k == 2 -> STEPL : ENDL + where - OVERL) : \
    (k == 2 -> TCANCEL : (k == 3 -> STEPP : ENDP + where - OVERP)))))

inline there(_e) {
    found = false; i = 0;
    do
    :: i < tail -> found = found || log[i] == _e; i++
    :: else -> break
    od
}

/* L5-L7: `code` becomes what replay of the first `n` events gives; each command was asked for by then */
inline replay(_n) {
    code = NEW; asks = 0; i = 0;
    do
    :: i < _n && is_command(log[i]) ->
        assert(asks < asked(code));                /* the code asks for nothing more here: ReplayDivergence */
        assert(nth(code, asks) == log[i]);         /* the code asks for something else: ReplayDivergence */
        asks++; i++
    :: i < _n && !is_command(log[i]) -> deliver(code, log[i]); i++
    :: else -> break
    od
}

inline put(_e) {
    assert(tail < MOST);
    there(_e); assert(!found);                      /* L3, L4: it stands twice */
    assert(!ended || _e == DONE || _e == DONE + 1);  /* L11 */
    log[tail] = _e; tail++;
    if
    :: is_command(_e) -> command = tail; ended = ended || is_end(_e)
    :: else -> fact = (_e == CREATED -> fact : tail)
    fi
}

/* L3: a fact is recorded whatever its writer has read, if it is new and rests on a command that is there */
inline record(_e) {
    there(_e);
    if
    :: _e > 0 && !found && (!ended || _e == DONE || _e == DONE + 1) -> put(_e)
    :: else
    fi
}

/* What the store answers: OK, or STALE (refused; the fact that came with it is recorded), or ENDED. */
mtype = { OK, STALE, ENDED };
inline judge(_r, _answer) {
    if
    :: to_batch[on[_r].batch] > 0 -> _answer = OK        /* L12: it is there already, and answered as then */
    :: else ->
        beyond = on[_r].after < tail;
        stale = false;
#ifdef ONLY_KEYS
        asks = on[_r].first; code = nth(on[_r].at, asks); there(code);
        stale = on[_r].n > 0 && found;             /* the writer has not seen that its command is there */
#endif
#ifndef NO_FENCE
        stale = on[_r].n > 0 && command > on[_r].after; /* L4 */
#ifdef TAIL_FENCE
        stale = stale || (on[_r].n > 0 && beyond);
#endif
#endif
        if
        :: on[_r].early > 0 && on[_r].after != 255 ->        /* L5 */
            there(on[_r].early);
            stale = stale || found;
#ifndef NO_TAIL
            stale = stale || beyond;
#endif
        :: else
        fi;
        if
        :: ended && on[_r].n > 0 -> record(on[_r].early); _answer = ENDED
        :: !(ended && on[_r].n > 0) && stale ->
            assert(command > on[_r].after || on[_r].early > 0); /* L4: a fact has tripped the fence */
            record(on[_r].early); _answer = STALE
        :: else ->
            at_batch[on[_r].batch] = tail + 1;
            if
            :: on[_r].early > 0 && on[_r].after == 255 -> record(on[_r].early)
            :: on[_r].early > 0 && on[_r].after != 255 -> put(on[_r].early)
            :: else
            fi;
            k = 0;
            do
            :: k < on[_r].n -> asks = on[_r].first + k; code = nth(on[_r].at, asks); put(code); k++
            :: else -> break
            od;
            to_batch[on[_r].batch] = tail;
            _answer = OK;
            if
            :: on[_r].n > 0 ->
#ifdef OWN_MARK
                mark = tail
#else
                mark = (mark > on[_r].after -> mark : on[_r].after)   /* L14 */
#endif
            :: else
            fi
        fi;
        replay(tail)
    fi
}

/* Whether the store says that somebody has something to do for the run (L14). */
bool open_step, open_timer;
inline look() {
    there(TIMER); open_timer = found; there(TCANCEL); open_timer = open_timer && !found;
    there(FIRED); open_timer = open_timer && !found;
    there(STEPL); open_step = found; there(STEPP); open_step = open_step || found;
    there(DONE); open_step = open_step && !found; there(DONE + 1); open_step = open_step && !found
}
#define ready (!ended && (command == 0 || fact > mark || open_step || open_timer))

proctype Decider(byte me) {
    bool live, early_allowed = true;
    bool told; /* what happened here is recorded, and is yet to be read */
    byte where, matched, after;
    mtype answer;
again:
    skip;
end:
    do
    :: d_step { !live && ready ->                                  /* load: read the log, and replay it */
        replay(tail); where = code; matched = asks; after = tail; live = true; told = false }

    :: d_step { live && ended -> live = false; where = 0; matched = 0; after = 0 } break

    :: d_step { live && !ended && after < tail ->                  /* catch up with what others have appended */
        if
        :: command > after -> live = false; where = 0; matched = 0; after = 0 /* another's: load again */
        :: else -> deliver(where, log[after]); after++; told = false
        fi }

    :: d_step { live && !ended && crashes > 0 ->
        crashes--; live = false; early_allowed = true; where = 0; matched = 0; after = 0 }

    :: d_step { live && matched < asked(where) -> on[me].early = 0 } /* the code has asked for something */
        goto send
    :: d_step { live && !told && where == RACE && matched == 2 -> on[me].early = FIRED } /* the timer is due */
        goto happened
    :: d_step { live && !told && (where == LATE && matched == 3 || where == TWICE && matched == 4) ->
        on[me].early = DONE + me }                                 /* the step's body has come to its end */
        goto happened
    od;
    goto over;

happened: /* a fact of this process: delivered early where that is allowed, else only recorded */
    if
    :: d_step { early_allowed -> code = on[me].early; deliver(where, code) }
    :: d_step { !early_allowed -> on[me].after = 255; on[me].n = 0 } goto sent
    fi;
send:
    atomic { on[me].after = after; on[me].first = matched; on[me].n = asked(where) - matched; on[me].at = where }
sent:
    atomic { d_step { name(me) } }
arrives:
    skip;
    if
    :: d_step { judge(me, answer); look() }
    :: d_step { losses > 0 && on[NET + me].batch == 0 ->           /* given up: a copy is on its way */
        give_up(me) }
        goto arrives
    fi;
    if
    :: d_step { crashes > 0 -> crashes--; live = false; early_allowed = true }
    :: d_step { answer == OK && on[me].after == 255 -> told = true } /* it will be read, as everybody's */
    :: d_step { answer == OK && on[me].after != 255 ->
        early_allowed = early_allowed || at_batch[on[me].batch] == after + 1;
        matched = matched + on[me].n;
        k = after;                                                 /* L5: what was missed is delivered next */
        do
        :: k < at_batch[on[me].batch] - 1 -> assert(!is_command(log[k])); deliver(where, log[k]); k++
        :: else -> break
        od;
        after = to_batch[on[me].batch];
        replay(after); assert(code == where && asks == matched) }  /* live is what replay gives */
    :: d_step { answer == STALE ->
#ifdef PARTIAL_IS_WHOLE
        if
        :: on[me].early > 0 && command <= after -> matched = matched + on[me].n; after = tail
        :: else -> live = false
        fi
#else
        early_allowed = early_allowed && on[me].early == 0;
        live = false
#endif
        }
    :: d_step { answer == ENDED -> live = false }
    fi;
    d_step {
        forget(me, (NET + me)); answer = 0;
        if
        :: !live -> where = 0; matched = 0; after = 0
        :: else
        fi
    }
    goto again;
over: skip
}

/* Sends when the hook is open. */
proctype Client() {
    byte n, acknowledged;
    mtype answer;
    do
    :: n < 2 ->
        d_step { command > 0 -> on[CLIENT].early = PAY + n; on[CLIENT].after = 255;
            name(CLIENT) }
arrives:
        skip;
        if
        :: d_step { !ended -> judge(CLIENT, answer); there(PAY + n); assert(found); acknowledged++ }
        :: d_step { ended -> there(PAY + n); acknowledged = acknowledged + found } /* refused, or there already */
        :: d_step { losses > 0 && on[NET + CLIENT].batch == 0 -> give_up(CLIENT) }
            goto arrives
        fi;
        d_step { n++; forget(CLIENT, (NET + CLIENT)); answer = 0 }
    :: else -> break
    od;
    skip;
    d_step { ended ->                                              /* L10, L12: counted, whether read or not */
        there(PAY); k = found; there(PAY + 1); k = k + found; assert(k == acknowledged);
        replay(tail);
        assert(code < OVERP || k == 2) }
}

/* What was given up arrives, and its answer reaches nobody. */
proctype Net(byte whose) {
    mtype answer;
end:
    do
    :: d_step { on[NET + whose].batch > 0 -> judge((NET + whose), answer); look(); forget((NET + whose), whose); answer = 0 }
    od
}

proctype Watch() {
end:
    timeout -> assert(ended)                            /* L14: nobody is going to do anything more */
}

init {
    d_step { put(CREATED); look() };
    atomic { run Decider(0); run Decider(1); run Client(); run Net(0); run Net(1); run Net(CLIENT); run Watch() }
}

#ifdef LIVE
ltl ends { <> ended }
#endif
