/* SPDX-License-Identifier: Apache-2.0
 *
 * Charge, call the driver, settle: what every allocating handler does.
 */
#ifndef FLEXAI_CHARGE_H
#define FLEXAI_CHARGE_H
#include "state.h"
#include "table.h"

struct fx_ticket {
    int card;
    uint64_t bytes;   /* charged */
    uint64_t asked;   /* of a small one: what it counts in its chunks */
    void *owner;
    bool small, managed, in_block;
};

/* Charge the current context's card for an allocation of `bytes`; false = answer CUDA_ERROR_OUT_OF_MEMORY. */
bool fx_ticket_take(struct fx_ticket *ticket, uint64_t bytes);
/* The same for what has an address of its own on the card, by which the driver's blocks are told apart. */
bool fx_ticket_take_at(struct fx_ticket *ticket, uint64_t bytes);
/* The driver has answered: remember the allocation under its key, or refund. */
void fx_ticket_settle(struct fx_ticket *ticket, CUresult rc, enum fx_kind kind, uint64_t key);

/* Around a free: take the entry out before the driver may give its address to somebody else, then refund, or put it back
 * when the driver refused. */
bool fx_free_begin(enum fx_kind kind, uint64_t key, struct fx_entry *entry);
void fx_free_end(bool known, CUresult rc, const struct fx_entry *entry);
/* Freed, but at a time that only the driver knows. */
void fx_free_later(const struct fx_entry *entry);
/* Refund all that lived in a context that is gone. */
void fx_free_owned(void *context);

/* Charge a card; when refused, give back what pools hold no longer, and try again. */
bool fx_take_hard(int card, uint64_t bytes);

/* Charge what the driver is known to hold beyond what was charged (contexts, modules, fragments), by its own ledger. */
void fx_measured(int card, uint64_t used_bytes);
uint64_t fx_extra(int card);
/* So much of it is another entry's from now on (a context's); the charge stays as it is. */
void fx_extra_moved(int card, uint64_t bytes);
/* Around each allocation or free, charge included: nothing is measured while one is under way. */
void fx_enter(void);
void fx_leave(bool settled);
extern uint32_t fx_under_way;
extern uint32_t fx_n_settled;
/* Let nothing new begin for a few milliseconds, so that a busy process is measured at all. */
void fx_pause(bool paused);

/* Charge for what takes memory that only the driver's ledger tells (code, stacks, buffers): an estimate before it is asked,
 * put right when it is measured. False = answer CUDA_ERROR_OUT_OF_MEMORY. */
bool fx_expect(int card, uint64_t bytes);
/* Measure now, if some of a card's charge is an estimate; `ours` as for fx_measure_twice. */
void fx_estimates_settle(int card, uint32_t ours);
void fx_expect_failed(int card, uint64_t bytes);
/* A charge whose end nobody will tell us: what is too much is given back when it is measured. */
void fx_extra_add(int card, uint64_t bytes);
void fx_charge_forget(void);
void fx_contexts_forget(void);
#endif
