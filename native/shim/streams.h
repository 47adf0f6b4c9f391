/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams this process launched into, and events to know when they have run dry.
 */
#ifndef FLEXAI_STREAMS_H
#define FLEXAI_STREAMS_H
#include "state.h"

#define FX_MAX_MARKS 32

/* An event behind work in a stream. */
struct fx_mark {
    CUevent event;
    CUcontext context;
};

void fx_stream_note(CUstream stream, bool per_thread);
void fx_stream_forget(CUstream stream);
void fx_streams_forget(void);
/* Wait until everything queued so far in the known streams of a card has ended. False: a capture is under way, or the
 * driver refused. */
bool fx_streams_wait(int card);

bool fx_mark_record(struct fx_mark *mark, CUstream stream, bool per_thread);
bool fx_mark_done(const struct fx_mark *mark);
bool fx_mark_wait(const struct fx_mark *mark);
void fx_mark_free(struct fx_mark *mark);
#endif
